//! The cost of a process so far, from proc(5).

use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Bytes that are resident now.
pub(super) fn resident_bytes(process: Pid) -> Result<u64> {
    status_bytes(process, "VmRSS:")
}

/// The most bytes that were ever resident.
pub(super) fn peak_bytes(process: Pid) -> Result<u64> {
    status_bytes(process, "VmHWM:")
}

fn status_bytes(process: Pid, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// How often its threads have waited for something and been woken.
pub(super) fn wakes(process: Pid) -> Result<u64> {
    let mut wakes = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        wakes += line.context("no count of switches in /proc/PID/task/TID/status")?.trim().parse::<u64>()?;
    }
    Ok(wakes)
}

/// Processor time of all its threads, in its own code and in the kernel's.
pub(super) fn cpu_time(process: Pid) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let ticks = ticks(&stat).context("no processor time in /proc/PID/stat")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Fields 14 and 15; the name before them may have blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut times = after_name.split(' ').skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 169 0 0 0 30 12 0 0 20 0 1 0 79541 4571136 403";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1 7"), None);
    }

    #[test]
    fn this_process_has_cost_something() {
        let own = Pid::this();
        assert!(cpu_time(own).is_ok());
        assert!(resident_bytes(own).unwrap() > 0);
        assert!(peak_bytes(own).unwrap() > 0);
        assert!(wakes(own).is_ok());
    }
}
