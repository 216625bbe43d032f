//! The arguments, one after the other, as settings. Values are checked here, so that the daemon refuses only what it
//! alone can judge.

use core::ffi::CStr;

use devbox_launch_proto::{Item, MAX_WAIT_MS, is_name};

use crate::options::UsageError;

/// Longest `--wait`, in seconds.
pub(crate) const MAX_WAIT_SECONDS: u32 = MAX_WAIT_MS / 1_000;

/// One argument, or two, understood.
pub(crate) enum Setting<'a> {
    Help,
    Version,
    List,
    ClearEnvironment,
    Optional,
    Wait(u32),
    Socket(&'a [u8]),
    Select(Selector, &'a [u8]),
    /// The command starts here.
    Command(usize),
}

impl<'a> Setting<'a> {
    pub(crate) const fn selection(self) -> Option<(Selector, &'a [u8])> {
        match self {
            Self::Select(selector, names) => Some((selector, names)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Selector {
    Only,
    Except,
    Require,
    Rename,
}

impl Selector {
    pub(crate) const fn item(self, text: &[u8]) -> Item<'_> {
        match self {
            Self::Only => Item::Only(text),
            Self::Except => Item::Except(text),
            Self::Require => Item::Require(text),
            Self::Rename => Item::Rename(text),
        }
    }

    /// Checks the value, so that the daemon refuses only what it alone can judge.
    fn setting(self, value: &[u8]) -> Result<Setting<'_>, UsageError<'_>> {
        if matches!(self, Self::Rename) {
            check_rename(value)?;
        } else {
            split_names(value).try_for_each(check_name)?;
        }
        Ok(Setting::Select(self, value))
    }
}

/// The rest of the arguments, as settings. The command is the last; the arguments after it are its own.
pub(crate) struct Settings<I> {
    arguments: I,
    position: usize,
}

impl<'a, I: Iterator<Item = &'a CStr>> Settings<I> {
    pub(crate) const fn new(arguments: I) -> Self {
        Self { arguments, position: 0 }
    }

    fn argument(&mut self) -> Option<&'a [u8]> {
        let argument = self.arguments.next()?;
        self.position += 1;
        Some(argument.to_bytes())
    }

    fn option(&mut self, argument: &'a [u8]) -> Result<Setting<'a>, UsageError<'a>> {
        let (name, attached) = split_value(argument);
        match name {
            b"--only" => Selector::Only.setting(self.value(name, attached)?),
            b"--except" => Selector::Except.setting(self.value(name, attached)?),
            b"--require" => Selector::Require.setting(self.value(name, attached)?),
            b"--rename" => Selector::Rename.setting(self.value(name, attached)?),
            b"--wait" => parse_wait(self.value(name, attached)?).map(Setting::Wait),
            b"--socket" => self.value(name, attached).map(Setting::Socket),
            _ => flag(name, attached),
        }
    }

    fn value(&mut self, option: &'a [u8], attached: Option<&'a [u8]>) -> Result<&'a [u8], UsageError<'a>> {
        attached.or_else(|| self.argument()).ok_or(UsageError::MissingValue(option))
    }

    /// The command, if an argument is left.
    fn command(&mut self) -> Option<Setting<'a>> {
        let index = self.position;
        self.argument().map(|_| Setting::Command(index))
    }
}

impl<'a, I: Iterator<Item = &'a CStr>> Iterator for Settings<I> {
    type Item = Result<Setting<'a>, UsageError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.position;
        match self.argument()? {
            b"--" => self.command().map(Ok),
            option if option.len() > 1 && option[0] == b'-' => Some(self.option(option)),
            _ => Some(Ok(Setting::Command(index))),
        }
    }
}

fn flag<'a>(name: &'a [u8], attached: Option<&[u8]>) -> Result<Setting<'a>, UsageError<'a>> {
    let setting = match name {
        b"--help" => Setting::Help,
        b"--version" => Setting::Version,
        b"--list" => Setting::List,
        b"--clear-env" => Setting::ClearEnvironment,
        b"--optional" => Setting::Optional,
        _ => return Err(UsageError::Unknown(name)),
    };
    if attached.is_some() { Err(UsageError::UnexpectedValue(name)) } else { Ok(setting) }
}

/// Splits `--name=value`.
fn split_value(option: &[u8]) -> (&[u8], Option<&[u8]>) {
    match option.iter().position(|byte| *byte == b'=') {
        Some(at) => (&option[..at], Some(&option[at + 1..])),
        None => (option, None),
    }
}

pub(crate) fn split_names(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|byte| *byte == b',')
}

fn check_name(name: &[u8]) -> Result<(), UsageError<'_>> {
    if is_name(name) { Ok(()) } else { Err(UsageError::Name(name)) }
}

fn check_rename(text: &[u8]) -> Result<(), UsageError<'_>> {
    match split_value(text) {
        (new, Some(name)) if is_name(new) && is_name(name) => Ok(()),
        _ => Err(UsageError::Rename(text)),
    }
}

/// Decimal seconds in milliseconds, rounded up: only `0` means not to wait at all.
fn parse_wait(text: &[u8]) -> Result<u32, UsageError<'_>> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    let digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    let seconds = whole.iter().fold(0u32, |number, digit| {
        number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
    });
    let valid = digits && whole.len() + fraction.len() > 0 && seconds <= MAX_WAIT_SECONDS;
    let milliseconds = valid.then(|| seconds * 1_000 + fraction_ms(fraction));
    milliseconds.filter(|milliseconds| *milliseconds <= MAX_WAIT_MS).ok_or(UsageError::Wait(text))
}

/// The digits after the point, in milliseconds, rounded up.
fn fraction_ms(digits: &[u8]) -> u32 {
    let (kept, cut) = digits.split_at(digits.len().min(3));
    let mut milliseconds = 0;
    for place in 0..3 {
        milliseconds = milliseconds * 10 + kept.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    }
    milliseconds + u32::from(cut.iter().any(|digit| *digit != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Text;

    #[test]
    fn waits_are_decimal_seconds_rounded_up() {
        let cases: [(&[u8], u32); 8] = [
            (b"0", 0),
            (b"1", 1_000),
            (b"2.5", 2_500),
            (b".25", 250),
            (b"3.", 3_000),
            (b"0.0001", 1),
            (b"0.0000", 0),
            (b"86400", 86_400_000),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse_wait(text), Ok(milliseconds), "{}", Text(text));
        }
        for text in
            [&b""[..], b".", b"-1", b"1e3", b"86401", b"86400.001", b"1.2.3", b"99999999999999999999", b"1s"]
        {
            assert_eq!(parse_wait(text), Err(UsageError::Wait(text)), "{}", Text(text));
        }
    }
}
