//! Another process, root's or a user's, that tries every way into a process: `data/forensics/reader.py`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::canary::Canary;
use crate::{needs, process, sdk};

/// The result of each way in: `found`, `clean`, or the name of an error.
pub type Outcomes = BTreeMap<String, String>;

/// Whether this test can have such a process.
#[must_use]
pub fn can_read() -> bool {
    needs::root() && needs::program("/usr/bin/python3", "python3")
}

/// Tries to read `canary` out of a process, as another user.
///
/// # Panics
/// If the reader itself fails.
pub async fn outcomes(user: u32, pid: u32, canary: &Canary) -> Outcomes {
    let script = std::fs::read_to_string(sdk::file("data/forensics/reader.py"))
        .expect("the script is in the repository");
    let mut command = Command::new("/usr/bin/python3");
    // By its text: another user may not be able to enter the repository.
    command.args(["-c", &script]).arg(pid.to_string()).uid(user).gid(user).current_dir("/");
    let patterns = canary.needles().map(|needle| hexadecimal(needle) + "\n").collect::<String>();
    let output = process::run(command, patterns.as_bytes()).await.success();
    serde_json::from_slice(&output.stdout).expect("the reader prints JSON")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
