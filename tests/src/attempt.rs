//! One launch while things go wrong. Two outcomes are right: the command has its secret and its own status, or the launch
//! exits with 125 and one line, without a command.

use crate::launch::Launch;

/// The status of a launch that has none of the secrets that it asked for (the shim's own).
pub const REFUSED: i32 = 125;

/// A status that no shim has of its own.
const COMMANDS_OWN: i32 = 42;

/// The outcome of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Its command ran, and had this value.
    Served(Vec<u8>),
    /// It was refused, with this line.
    Refused(String),
}

/// Launches a command that needs the variable `name`.
///
/// # Panics
/// If the launch does anything but the two right things: a wrong status, a command without the variable, a refusal
/// without a reason or with more than a line, or no end.
pub async fn attempt(launch: &Launch, name: &str) -> Attempt {
    let script = format!("printf %s \"${{{name}?}}\" && exit {COMMANDS_OWN}");
    let output = launch.run(&["sh", "-c", &script]).await;
    if output.status == COMMANDS_OWN {
        assert_eq!(output.stderr, "", "a launch that succeeds says nothing");
        return Attempt::Served(output.stdout);
    }
    assert_eq!(output.status, REFUSED, "{}", output.stderr);
    assert_eq!(output.stdout, b"", "no command has run");
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    Attempt::Refused(output.stderr)
}

impl Attempt {
    /// The value that the command had, or `None`.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Served(value) => Some(value),
            Self::Refused(_) => None,
        }
    }

    /// The line of a refusal.
    ///
    /// # Panics
    /// If it was served.
    #[must_use]
    pub fn refusal(self) -> String {
        match self {
            Self::Refused(line) => line,
            Self::Served(_) => panic!("the launch was served"),
        }
    }
}
