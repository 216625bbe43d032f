//! Whether any memory of this process can reach a swap device. The secrets' own pages never do;
//! this is about ciphertext, keys and TLS state.

use std::fs;
use std::path::Path;

use super::Step;

/// Reports the means that keep this process off swap. `memory_locked`: the result of mlockall(2).
pub(super) fn look(memory_locked: &Step) -> Step {
    let swaps = fs::read_to_string("/proc/swaps").ok();
    if memory_locked.achieved {
        return Step::achieved_by(format!("{}, all memory is locked", describe(swaps.as_deref())));
    }
    if unit_has_none() {
        return Step::achieved_by("off for this unit (MemorySwapMax=0)");
    }
    match swaps {
        Some(swaps) if !is_on(&swaps) => Step::achieved_by("off"),
        swaps => Step::missing(format!(
            "{}, and memory besides the secrets may reach it: LimitMEMLOCK=64M, MemorySwapMax=0, or swapoff -a",
            describe(swaps.as_deref())
        )),
    }
}

fn describe(swaps: Option<&str>) -> &'static str {
    match swaps.map(is_on) {
        None => "not visible here",
        Some(false) => "off",
        Some(true) if zswap_is_on() => "on, with zswap",
        Some(true) => "on",
    }
}

/// `/proc/swaps` has a line of titles, and one for each device.
fn is_on(swaps: &str) -> bool {
    swaps.lines().nth(1).is_some()
}

fn zswap_is_on() -> bool {
    fs::read_to_string("/sys/module/zswap/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

/// The limit of the unified hierarchy; without that, or if it is unreadable, there is none.
fn unit_has_none() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let limit = Path::new("/sys/fs/cgroup").join(group).join("memory.swap.max");
    fs::read_to_string(limit).is_ok_and(|limit| limit.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    #[test]
    fn a_swap_device_is_seen() {
        assert!(!is_on(TITLES));
        assert!(is_on(&format!("{TITLES}/dev/vdb partition\t1048572\t0\t-2\n")));
    }

    #[test]
    fn locked_memory_needs_no_look_at_swap() {
        assert!(look(&Step::achieved()).achieved);
    }
}
