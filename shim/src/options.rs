//! The command line, and the request that it makes.
//!
//! Options end at the first argument that is not an option, or after `--`. Arguments are read in the kernel's own
//! memory, twice: once for their meaning, once for the request. The program stores no copy in between.

use core::ffi::CStr;
use core::fmt;

use devbox_launch_proto::{Flags, Item, RequestBuilder, RequestTooLarge};

use crate::line::Text;
use crate::settings::{MAX_WAIT_SECONDS, Setting, Settings, split_names};
use crate::wait::Attempt;

/// Arguments that can be read again.
pub trait Arguments<'a>: Iterator<Item = &'a CStr> + Clone {}

impl<'a, I: Iterator<Item = &'a CStr> + Clone> Arguments<'a> for I {}

/// The action that the command line asks for.
#[derive(Debug, Clone)]
pub enum Invocation<'a, I> {
    /// Print the manual.
    Help,
    /// Print the version.
    Version,
    /// Print the names of the variables.
    List(Options<'a, I>),
    /// Run the command that starts at this index of the arguments.
    Launch(Options<'a, I>, usize),
}

/// The options in effect.
#[derive(Debug, Clone)]
pub struct Options<'a, I> {
    arguments: I,
    list: bool,
    /// The command gets only the injected variables.
    pub clear_environment: bool,
    /// How long to wait for a daemon and its first secrets, in milliseconds, if the user set it.
    pub wait_ms: Option<u32>,
    /// The command runs even without secrets.
    pub optional: bool,
    /// The path of the daemon's socket, if the user set it.
    pub socket: Option<&'a [u8]>,
}

/// An invalid command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageError<'a> {
    /// There is no such option.
    Unknown(&'a [u8]),
    /// The option needs a value, and the command line ends.
    MissingValue(&'a [u8]),
    /// The option takes no value.
    UnexpectedValue(&'a [u8]),
    /// Invalid environment name.
    Name(&'a [u8]),
    /// The value of `--rename` is not `NEW=NAME`.
    Rename(&'a [u8]),
    /// The value of `--wait` is not a number of seconds.
    Wait(&'a [u8]),
    /// There is no command to run.
    NoCommand,
    /// `--list` runs no command.
    ListWithCommand,
}

impl fmt::Display for UsageError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "there is no option '{}'", Text(option)),
            Self::MissingValue(option) => write!(f, "the option '{}' needs a value", Text(option)),
            Self::UnexpectedValue(option) => write!(f, "the option '{}' takes no value", Text(option)),
            Self::Name(name) => write!(
                f,
                "'{}' is not the name of an environment variable; names are divided by ',' and have letters, digits \
                 and '_'",
                Text(name)
            ),
            Self::Rename(text) => write!(f, "--rename takes NEW=NAME, not '{}'", Text(text)),
            Self::Wait(text) => {
                write!(f, "--wait takes seconds from 0 to {MAX_WAIT_SECONDS}, as 2.5, not '{}'", Text(text))
            }
            Self::NoCommand => f.write_str("there is no command to run"),
            Self::ListWithCommand => f.write_str("--list runs no command; leave one of them out"),
        }?;
        f.write_str("; see 'devbox-exec --help'")
    }
}

impl core::error::Error for UsageError<'_> {}

/// Reads the arguments after the program's own name.
///
/// # Errors
/// [`UsageError`], for the first invalid argument.
pub fn parse<'a, I: Arguments<'a>>(arguments: I) -> Result<Invocation<'a, I>, UsageError<'a>> {
    let settings = Settings::new(arguments.clone());
    let mut options = Options {
        arguments,
        list: false,
        clear_environment: false,
        wait_ms: None,
        optional: false,
        socket: None,
    };
    let mut command = None;
    for setting in settings {
        match setting? {
            Setting::Help => return Ok(Invocation::Help),
            Setting::Version => return Ok(Invocation::Version),
            Setting::List => options.list = true,
            Setting::ClearEnvironment => options.clear_environment = true,
            Setting::Optional => options.optional = true,
            Setting::Wait(milliseconds) => options.wait_ms = Some(milliseconds),
            Setting::Socket(path) => options.socket = Some(path),
            Setting::Select(..) => {}
            Setting::Command(index) => {
                command = Some(index);
                break;
            }
        }
    }
    match (options.list, command) {
        (true, None) => Ok(Invocation::List(options)),
        (false, Some(index)) => Ok(Invocation::Launch(options, index)),
        (true, Some(_)) => Err(UsageError::ListWithCommand),
        (false, None) => Err(UsageError::NoCommand),
    }
}

impl<'a, I: Arguments<'a>> Options<'a, I> {
    /// Writes the request of one attempt into `buffer`.
    ///
    /// # Errors
    /// [`RequestTooLarge`] if the buffer or the protocol has no room for it.
    pub(crate) fn request<'b>(
        &self,
        inline: bool,
        attempt: Attempt,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], RequestTooLarge> {
        let flags = Flags { list: self.list, inline, patient: attempt.patient };
        let mut builder = RequestBuilder::new(buffer, flags, attempt.wait_ms)?;
        for item in self.selection() {
            builder.push(item)?;
        }
        Ok(builder.finish())
    }

    fn selection(&self) -> impl Iterator<Item = Item<'a>> {
        Settings::new(self.arguments.clone())
            .map_while(Result::ok)
            .take_while(|setting| !matches!(setting, Setting::Command(_)))
            .filter_map(Setting::selection)
            .flat_map(|(selector, names)| split_names(names).map(move |name| selector.item(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::string::ToString;
    use std::vec::Vec;

    use devbox_launch_proto::{HEADER_LEN, Items, RequestHeader};
    use proptest::prelude::*;

    use super::*;

    fn launch<'a>(arguments: &'a [&'a CStr]) -> (Options<'a, impl Arguments<'a>>, usize) {
        match parse(arguments.iter().copied()) {
            Ok(Invocation::Launch(options, index)) => (options, index),
            other => panic!("no launch: {:?}", other.err()),
        }
    }

    fn error<'a>(arguments: &'a [&'a CStr]) -> Option<UsageError<'a>> {
        parse(arguments.iter().copied()).err()
    }

    #[test]
    fn a_bare_command_has_the_defaults() {
        let (options, index) = launch(&[c"make", c"--only", c"x"]);
        assert_eq!((index, options.wait_ms, options.socket), (0, None, None));
        assert!(!options.optional && !options.clear_environment && !options.list);
        assert_eq!(options.selection().count(), 0);
    }

    #[test]
    fn options_end_at_the_command_or_after_two_dashes() {
        assert_eq!(launch(&[c"--optional", c"cmd", c"--optional"]).1, 1);
        assert_eq!(launch(&[c"--optional", c"--", c"--odd-name"]).1, 2);
        assert_eq!(launch(&[c"-"]).1, 0);
        assert_eq!(launch(&[c""]).1, 0);
    }

    #[test]
    fn values_may_be_attached_or_follow() {
        let arguments =
            [c"--wait=2.5", c"--socket", c"/s", c"--wait", c"1", c"--clear-env", c"--optional", c"x"];
        let (options, index) = launch(&arguments);
        assert_eq!((options.wait_ms, options.socket, index), (Some(1_000), Some(&b"/s"[..]), 7));
        assert!(options.clear_environment && options.optional);
    }

    #[test]
    fn the_selection_goes_into_the_request_in_order() {
        let arguments = [
            c"--only",
            c"A,B",
            c"--rename=N=A",
            c"--except=C",
            c"--require",
            c"A",
            c"--",
            c"x",
            c"--only",
            c"Z",
        ];
        let (options, _) = launch(&arguments);
        let mut buffer = [0; 256];
        let request = options.request(true, Attempt { wait_ms: 7, patient: true }, &mut buffer).unwrap();
        let (header, body) = request.split_first_chunk::<HEADER_LEN>().unwrap();
        let header = RequestHeader::decode(header).unwrap();
        assert_eq!((header.flags, header.wait_ms), (Flags { list: false, inline: true, patient: true }, 7));
        let items: Vec<_> = Items::new(body).map(Result::unwrap).collect();
        let expected = [
            Item::Only(b"A"),
            Item::Only(b"B"),
            Item::Rename(b"N=A"),
            Item::Except(b"C"),
            Item::Require(b"A"),
        ];
        assert_eq!(items, expected);
    }

    #[test]
    fn a_list_is_asked_for_by_its_flag() {
        let arguments = [c"--list", c"--only=A"];
        let Ok(Invocation::List(options)) = parse(arguments.into_iter()) else { panic!("no list") };
        let mut buffer = [0; 64];
        let request = options.request(false, Attempt { wait_ms: 0, patient: false }, &mut buffer).unwrap();
        let header = RequestHeader::decode(request.first_chunk().unwrap()).unwrap();
        assert_eq!(header.flags, Flags { list: true, ..Flags::default() });
    }

    #[test]
    fn help_and_version_come_before_later_mistakes() {
        assert!(matches!(parse([c"--help", c"--nonsense"].into_iter()), Ok(Invocation::Help)));
        assert!(matches!(parse([c"--list", c"--version"].into_iter()), Ok(Invocation::Version)));
    }

    #[test]
    fn each_mistake_is_named() {
        assert_eq!(error(&[c"--onyl=A", c"x"]), Some(UsageError::Unknown(b"--onyl")));
        assert_eq!(error(&[c"-x"]), Some(UsageError::Unknown(b"-x")));
        assert_eq!(error(&[c"--only"]), Some(UsageError::MissingValue(b"--only")));
        assert_eq!(error(&[c"--list=yes"]), Some(UsageError::UnexpectedValue(b"--list")));
        assert_eq!(error(&[c"--only=A,,B", c"x"]), Some(UsageError::Name(b"")));
        assert_eq!(error(&[c"--require", c"A-B", c"x"]), Some(UsageError::Name(b"A-B")));
        assert_eq!(error(&[c"--rename=A", c"x"]), Some(UsageError::Rename(b"A")));
        assert_eq!(error(&[c"--rename==A", c"x"]), Some(UsageError::Rename(b"=A")));
        assert_eq!(error(&[]), Some(UsageError::NoCommand));
        assert_eq!(error(&[c"--optional", c"--"]), Some(UsageError::NoCommand));
        assert_eq!(error(&[c"--list", c"x"]), Some(UsageError::ListWithCommand));
        assert!(UsageError::NoCommand.to_string().ends_with("; see 'devbox-exec --help'"));
    }

    proptest! {
        #[test]
        fn no_arguments_make_the_parser_panic(
            arguments in proptest::collection::vec(
                prop_oneof![
                    "-{0,2}[a-z=,]{0,8}",
                    "--(only|except|require|rename|wait|socket|list|help)(=[A-C0-9=,.]{0,6})?",
                    "[A-C0-9=,.]{0,6}",
                ],
                0..8,
            ),
        ) {
            let strings: Vec<CString> = arguments.into_iter().map(|text| CString::new(text).unwrap()).collect();
            let parsed = parse(strings.iter().map(CString::as_c_str));
            if let Ok(Invocation::Launch(options, index)) = parsed {
                prop_assert!(index < strings.len());
                let mut buffer = [0; 4_096];
                let attempt = Attempt { wait_ms: 0, patient: false };
                prop_assert!(options.request(false, attempt, &mut buffer).is_ok());
            }
        }
    }
}
