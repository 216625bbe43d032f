//! The VM generation ID: the hypervisor changes it when it starts a snapshot.

use std::fs;
use std::path::Path;

/// The kernel's driver for machines with ACPI, and with a device tree.
const DRIVERS: [&str; 2] = ["/sys/bus/acpi/drivers/vmgenid", "/sys/bus/platform/drivers/vmgenid"];

/// Whether the kernel reports changes: a device has its driver.
pub(super) fn is_reported() -> bool {
    DRIVERS.iter().any(|driver| has_device(Path::new(driver)))
}

/// A driver's devices are links in its directory, beside the one to its module.
fn has_device(driver: &Path) -> bool {
    let entries = fs::read_dir(driver).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()) && entry.file_name() != "module")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_driver_without_a_device_reports_no_generation() {
        let driver = tempfile::tempdir().unwrap();
        fs::write(driver.path().join("bind"), "").unwrap();
        symlink("../module", driver.path().join("module")).unwrap();
        assert!(!has_device(driver.path()) && !has_device(&driver.path().join("none")));
        symlink("../80010000.vmgenid", driver.path().join("80010000.vmgenid")).unwrap();
        assert!(has_device(driver.path()));
    }
}
