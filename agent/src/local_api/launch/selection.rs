//! The variables of a launch: those that it asks for, that the devbox has, and that it may have.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::IoSlice;

use devbox_launch_proto::{Item, Items, LARGEST_ROOM};
use devbox_secrets_proto::guarded::is_guarded;
use devbox_secrets_proto::name::{InvalidVariable, MAX_ARG_STRLEN, check_name};

use super::refusal::{Refusal, quoted};
use crate::access::authorize::Decision;
use crate::memory::Generation;

/// Length after which the audit's list of names is cut, in bytes.
const MAX_SUMMARY: usize = 4_096;

const NAMED: usize = 5;
/// Bytes that `execve(2)` counts for a string on top of its own: a pointer.
const POINTER_LEN: usize = size_of::<usize>();

/// Variables of one generation, in ascending order of the name under which each is injected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection<'a> {
    Whole,
    Picked(Vec<Pick<'a>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick<'a> {
    rename: Option<&'a [u8]>,
    at: usize,
}

impl Selection<'_> {
    pub(super) fn count(&self, generation: &Generation) -> usize {
        match self {
            Self::Whole => generation.count(),
            Self::Picked(picks) => picks.len(),
        }
    }

    /// Length of all strings, in bytes.
    pub(super) fn len(&self, generation: &Generation) -> usize {
        match self {
            Self::Whole => generation.strings().len(),
            Self::Picked(picks) => picks.iter().map(|pick| pick.len(generation)).sum(),
        }
    }

    /// Refuses more than any `execve(2)` takes, before pages are made for it. Only the launcher
    /// knows the length of the command's own strings, so it checks again.
    pub(super) fn check_len(&self, generation: &Generation) -> Result<(), Refusal> {
        let pointers = self.count(generation).saturating_mul(POINTER_LEN);
        let needed = self.len(generation).saturating_add(pointers);
        if needed <= LARGEST_ROOM {
            return Ok(());
        }
        Err(Refusal::too_large(needed, &self.largest(generation)))
    }

    fn largest(&self, generation: &Generation) -> String {
        let mut sizes: Vec<(usize, &[u8])> = match self {
            Self::Whole => {
                let variables = generation.variables().enumerate();
                variables.map(|(at, it)| (generation.string(at).len(), it.name.as_bytes())).collect()
            }
            Self::Picked(picks) => {
                picks.iter().map(|pick| (pick.len(generation), pick.name(generation))).collect()
            }
        };
        sizes.sort_unstable_by_key(|(len, _)| std::cmp::Reverse(*len));
        let named = sizes.iter().take(NAMED).map(|(len, name)| format!("{} ({len} bytes)", quoted(name)));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Plaintext: copies all strings to the start of `room`, which is long enough.
    pub(super) fn copy_to(&self, generation: &Generation, mut room: &mut [u8]) {
        let mut put = |bytes: &[u8]| {
            let (here, rest) = std::mem::take(&mut room).split_at_mut(bytes.len());
            here.copy_from_slice(bytes);
            room = rest;
        };
        match self {
            Self::Whole => put(generation.strings()),
            Self::Picked(picks) => picks.iter().flat_map(|pick| pick.parts(generation)).for_each(put),
        }
    }

    /// Plaintext: all strings, in place.
    pub(super) fn slices<'b>(&'b self, generation: &'b Generation) -> Vec<IoSlice<'b>> {
        match self {
            Self::Whole => vec![IoSlice::new(generation.strings())],
            Self::Picked(picks) => {
                let parts = picks.iter().flat_map(|pick| pick.parts(generation));
                parts.filter(|part| !part.is_empty()).map(IoSlice::new).collect()
            }
        }
    }

    /// The names for the audit: `*` for all variables, or as many names as fit, with both names of
    /// a renamed one.
    pub(super) fn summary(&self, generation: &Generation) -> Cow<'static, str> {
        let Self::Picked(picks) = self else { return Cow::Borrowed("*") };
        let mut names = String::new();
        for pick in picks {
            if names.len() > MAX_SUMMARY {
                names.push_str(" …");
                break;
            }
            let space = if names.is_empty() { "" } else { " " };
            let (name, new) = (generation.name(pick.at), pick.rename.map(String::from_utf8_lossy));
            let _ = match new {
                Some(new) => write!(names, "{space}{new}={name}"),
                None => write!(names, "{space}{name}"),
            };
        }
        Cow::Owned(names)
    }

    pub(super) fn names<'b>(&'b self, generation: &'b Generation) -> Vec<&'b [u8]> {
        match self {
            Self::Whole => generation.variables().map(|variable| variable.name.as_bytes()).collect(),
            Self::Picked(picks) => picks.iter().map(|pick| pick.name(generation)).collect(),
        }
    }
}

impl<'a> Pick<'a> {
    fn name<'b>(&'b self, generation: &'b Generation) -> &'b [u8] {
        self.rename.unwrap_or_else(|| generation.name(self.at).as_bytes())
    }

    fn len(&self, generation: &Generation) -> usize {
        self.parts(generation).iter().map(|part| part.len()).sum()
    }

    /// The new name, if there is one, and the rest of the string.
    fn parts<'b>(&self, generation: &'b Generation) -> [&'b [u8]; 2]
    where
        'a: 'b,
    {
        let string = generation.string(self.at);
        match self.rename {
            None => [string, &[]],
            Some(name) => [name, &string[generation.name(self.at).len()..]],
        }
    }
}

/// Selects variables. `body` is the request's, unparsed.
///
/// # Errors
/// A [`Refusal`] with the variable and the remedy. A process learns whether a variable exists only
/// if it may have it.
pub(super) fn select<'a>(
    generation: &Generation,
    decision: &Decision,
    body: &'a [u8],
) -> Result<Selection<'a>, Refusal> {
    if body.is_empty() && decision.allows_everything() && !generation.has_guarded_names() {
        return Ok(Selection::Whole);
    }
    let asked = Asked::read(body)?;
    let context = Context { generation, decision };
    let mut choices = context.chosen(&asked)?;
    for (new, name) in &asked.rename {
        context.rename(&mut choices, new, name)?;
    }
    let picks = context.in_order(&choices)?;
    for name in &asked.require {
        context.require(&choices, &picks, name)?;
    }
    let whole = picks.len() == generation.count() && asked.rename.is_empty();
    Ok(if whole { Selection::Whole } else { Selection::Picked(picks) })
}

#[derive(Default)]
struct Asked<'a> {
    only: Vec<&'a [u8]>,
    except: Vec<&'a [u8]>,
    require: Vec<&'a [u8]>,
    /// Pairs of new name and name.
    rename: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Asked<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut asked = Self::default();
        for item in Items::new(body) {
            match item.map_err(|error| Refusal::invalid(&error.to_string()))? {
                Item::Only(name) => asked.only.push(name),
                Item::Except(name) => asked.except.push(name),
                Item::Require(name) => asked.require.push(name),
                Item::Rename(text) => asked.rename.push(split_rename(text)?),
            }
        }
        Ok(asked)
    }
}

fn split_rename(text: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let equals = text.iter().position(|b| *b == b'=').ok_or_else(|| {
        Refusal::invalid(&format!("--rename {}: write NEW=NAME, the new name first", quoted(text)))
    })?;
    Ok((&text[..equals], &text[equals + 1..]))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice<'a> {
    Out,
    In,
    As(&'a [u8]),
}

struct Context<'g> {
    generation: &'g Generation,
    decision: &'g Decision,
}

impl Context<'_> {
    /// One choice for each variable: all that are granted, or those in `only`, without those in
    /// `except`.
    fn chosen<'a>(&self, asked: &Asked<'a>) -> Result<Vec<Choice<'a>>, Refusal> {
        let mut choices = vec![Choice::Out; self.generation.count()];
        if asked.only.is_empty() {
            for (choice, variable) in choices.iter_mut().zip(self.generation.variables()) {
                if self.decision.allows(variable.name.as_bytes()) {
                    *choice = Choice::In;
                }
            }
        }
        for name in &asked.only {
            choices[self.find(name)?] = Choice::In;
        }
        for name in &asked.except {
            choices[self.find(name)?] = Choice::Out;
        }
        match asked.only.iter().find(|name| asked_out(&choices, self.generation, name)) {
            Some(name) => Err(Refusal::invalid(&format!(
                "{} is named by both --only and --except: name it once",
                quoted(name)
            ))),
            None => Ok(choices),
        }
    }

    /// The position of a variable that this process may have. The grant is checked first, so that
    /// names cannot be probed.
    fn find(&self, name: &[u8]) -> Result<usize, Refusal> {
        if !self.decision.allows(name) {
            return Err(Refusal::not_granted(name, is_guarded(name), self.decision));
        }
        self.generation.find(name).ok_or_else(|| Refusal::missing(name))
    }

    fn rename<'a>(&self, choices: &mut [Choice<'a>], new: &'a [u8], name: &[u8]) -> Result<(), Refusal> {
        let invalid =
            |what: &str| Err(Refusal::invalid(&format!("--rename {}={}: {what}", quoted(new), quoted(name))));
        let text = std::str::from_utf8(new).map_err(|_| InvalidVariable::NameCharacters);
        if let Err(error) = text.and_then(check_name) {
            return invalid(&error.to_string());
        }
        if is_guarded(new) && !self.decision.allows(new) {
            return Err(Refusal::not_granted(new, true, self.decision));
        }
        let at = self.find(name)?;
        if new.len() + self.generation.string(at).len() - name.len() > MAX_ARG_STRLEN {
            return invalid("the variable is too long under this name (131072 bytes, Linux MAX_ARG_STRLEN)");
        }
        match choices[at] {
            Choice::Out => {
                invalid("the variable is left out by --only or --except; name it by --only, or drop one")
            }
            Choice::As(_) => invalid("the variable is renamed twice; keep one"),
            Choice::In => {
                choices[at] = Choice::As(new);
                Ok(())
            }
        }
    }

    /// The picks in ascending order of injected name, without duplicates.
    fn in_order<'a>(&self, choices: &[Choice<'a>]) -> Result<Vec<Pick<'a>>, Refusal> {
        let pick = |(at, choice): (usize, &Choice<'a>)| match choice {
            Choice::Out => None,
            Choice::In => Some(Pick { rename: None, at }),
            Choice::As(new) => Some(Pick { rename: Some(new), at }),
        };
        let mut picks: Vec<_> = choices.iter().enumerate().filter_map(pick).collect();
        if picks.iter().any(|pick| pick.rename.is_some()) {
            picks.sort_unstable_by(|a, b| a.name(self.generation).cmp(b.name(self.generation)));
        }
        let twice =
            picks.windows(2).find(|pair| pair[0].name(self.generation) == pair[1].name(self.generation));
        match twice {
            Some(pair) => Err(self.name_taken(pair)),
            None => Ok(picks),
        }
    }

    fn name_taken(&self, pair: &[Pick<'_>]) -> Refusal {
        let name = quoted(pair[0].name(self.generation));
        let [one, other] = [pair[0].at, pair[1].at].map(|at| self.generation.name(at));
        Refusal::invalid(&format!(
            "--rename: both {one} and {other} would be injected as {name}; leave one out by --except, or give it another \
             name"
        ))
    }

    fn require(&self, choices: &[Choice<'_>], picks: &[Pick<'_>], name: &[u8]) -> Result<(), Refusal> {
        if picks.binary_search_by(|pick| pick.name(self.generation).cmp(name)).is_ok() {
            return Ok(());
        }
        let name_text = quoted(name);
        Err(Refusal::invalid(&match choices[self.find(name)?] {
            Choice::As(new) => {
                format!("--require {name_text}: it is renamed; require {} instead", quoted(new))
            }
            Choice::In | Choice::Out => {
                format!("--require {name_text}: it is left out by --only or --except; drop one of the two")
            }
        }))
    }
}

/// Whether `name`, which `--only` lists, was left out again.
fn asked_out(choices: &[Choice<'_>], generation: &Generation, name: &[u8]) -> bool {
    generation.find(name).is_some_and(|at| choices[at] == Choice::Out)
}

#[cfg(test)]
mod tests {
    use devbox_launch_proto::{ErrorCode, Flags, HEADER_LEN, RequestBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::access::peer::Peer;
    use crate::access::policy::{Policy, RuleConfig};
    use crate::memory::test_support::SealedBundle;
    use crate::sys::test_support::memories;

    const PEER: Peer = Peer { uid: 1000, gid: 100, pid: 1 };

    fn generation(names: &[&str]) -> Generation {
        let values: Vec<_> = names.iter().map(|name| (*name, b"v".as_slice())).collect();
        SealedBundle::new(1, &values).open(&memories()[1]).unwrap()
    }

    fn policy(env: &[&str]) -> Policy {
        let rule = format!("any = true\nenv = {env:?}");
        Policy::from_config(vec![toml::from_str::<RuleConfig>(&rule).unwrap()]).unwrap()
    }

    fn body(items: &[Item<'_>]) -> Vec<u8> {
        let mut buffer = vec![0; 8_192];
        let mut builder = RequestBuilder::new(&mut buffer, Flags::default(), 0).unwrap();
        for item in items {
            builder.push(*item).unwrap();
        }
        builder.finish()[HEADER_LEN..].to_vec()
    }

    /// The injected strings as text, or the refusal.
    fn launch(names: &[&str], env: &[&str], items: &[Item<'_>]) -> Result<String, Refusal> {
        let (generation, policy, body) = (generation(names), policy(env), body(items));
        let selection = select(&generation, &Decision::about_ids(&policy, PEER), &body)?;
        let mut copied = vec![0; selection.len(&generation)];
        selection.copy_to(&generation, &mut copied);
        let sliced =
            selection.slices(&generation).iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
        assert_eq!(copied, sliced, "both ways to answer hold the same");
        assert_eq!(copied.iter().filter(|b| **b == 0).count(), selection.count(&generation));
        Ok(String::from_utf8(copied).unwrap().replace('\0', " "))
    }

    fn refusal(names: &[&str], env: &[&str], items: &[Item<'_>]) -> (ErrorCode, String) {
        let refusal = launch(names, env, items).unwrap_err();
        (refusal.code, refusal.text().to_owned())
    }

    use Item::{Except, Only, Rename, Require};

    #[test]
    fn without_a_selection_a_launch_gets_what_is_granted_in_order_of_name() {
        assert_eq!(launch(&["B", "A"], &["*"], &[]).unwrap(), "A=v B=v ");
        assert_eq!(launch(&["B", "A"], &["B"], &[]).unwrap(), "B=v ");
        assert_eq!(launch(&["B", "A"], &["C"], &[]).unwrap(), "");
    }

    #[test]
    fn guarded_variables_stay_out_unless_a_rule_names_them() {
        assert_eq!(launch(&["A", "PATH"], &["*"], &[]).unwrap(), "A=v ");
        assert_eq!(launch(&["A", "PATH"], &["*", "PATH"], &[]).unwrap(), "A=v PATH=v ");
        let (code, text) = refusal(&["A", "PATH"], &["*"], &[Only(b"PATH")]);
        assert_eq!(code, ErrorCode::Denied);
        assert!(text.contains("exact name"), "{text}");
    }

    #[test]
    fn only_and_except_choose() {
        let names = ["A", "B", "C"];
        assert_eq!(launch(&names, &["*"], &[Only(b"C"), Only(b"A"), Only(b"A")]).unwrap(), "A=v C=v ");
        assert_eq!(launch(&names, &["*"], &[Except(b"B")]).unwrap(), "A=v C=v ");
        assert_eq!(refusal(&names, &["*"], &[Only(b"A"), Except(b"A")]).0, ErrorCode::Invalid);
    }

    #[test]
    fn an_absent_variable_is_missing_and_an_ungranted_one_is_denied() {
        for item in [Only(b"NONE"), Except(b"NONE"), Require(b"NONE"), Rename(b"X=NONE")] {
            let (code, text) = refusal(&["A"], &["*"], &[item]);
            assert_eq!(code, ErrorCode::Missing, "{item:?}");
            assert!(text.contains("NONE") && text.contains("bind a secret"), "{text}");
        }
        for item in [Only(b"A"), Except(b"A"), Require(b"A"), Rename(b"X=A")] {
            let (code, text) = refusal(&["A", "B"], &["B"], &[item]);
            assert_eq!(code, ErrorCode::Denied, "{item:?}");
            assert!(text.contains("add \"A\" to the env of a [[rule]] with uid = 1000"), "{text}");
        }
    }

    #[test]
    fn a_process_without_a_grant_does_not_learn_whether_a_variable_exists() {
        for item in
            [Only(b"SECRET_ONE"), Except(b"SECRET_ONE"), Require(b"SECRET_ONE"), Rename(b"X=SECRET_ONE")]
        {
            let there = refusal(&["SECRET_ONE", "B"], &["B"], &[item]);
            let absent = refusal(&["B"], &["B"], &[item]);
            assert_eq!(there, absent, "{item:?}");
        }
    }

    #[test]
    fn a_renamed_variable_comes_under_its_new_name_and_in_its_order() {
        let names = ["A", "B", "C"];
        assert_eq!(launch(&names, &["*"], &[Rename(b"Z=A")]).unwrap(), "B=v C=v Z=v ");
        assert_eq!(launch(&names, &["*"], &[Only(b"B"), Rename(b"LONGER=B")]).unwrap(), "LONGER=v ");
        let swap = [Rename(b"A=B"), Rename(b"B=A"), Except(b"C")];
        assert_eq!(launch(&names, &["*"], &swap).unwrap(), "A=v B=v ");
    }

    #[test]
    fn contradicting_renames_are_refused_by_name() {
        let invalid = |items: &[Item<'_>], word: &str| {
            let (code, text) = refusal(&["A", "B"], &["*"], items);
            assert_eq!(code, ErrorCode::Invalid, "{text}");
            assert!(text.contains(word), "{text}");
        };
        invalid(&[Rename(b"A=B")], "both");
        invalid(&[Rename(b"X=A"), Rename(b"X=B")], "both");
        invalid(&[Rename(b"X=A"), Rename(b"Y=A")], "twice");
        invalid(&[Rename(b"X=A"), Except(b"A")], "left out");
        invalid(&[Rename(b"X=A"), Only(b"B")], "left out");
        invalid(&[Rename(b"1X=A")], "letter");
        invalid(&[Rename(b"=A")], "letter");
        invalid(&[Rename(b"\xff=A")], "letter");
        invalid(&[Rename(b"A")], "NEW=NAME");
    }

    #[test]
    fn a_rename_does_not_get_around_a_guarded_name() {
        assert_eq!(refusal(&["A"], &["*"], &[Rename(b"LD_PRELOAD=A")]).0, ErrorCode::Denied);
        assert_eq!(
            launch(&["A"], &["A", "LD_PRELOAD"], &[Rename(b"LD_PRELOAD=A")]).unwrap(),
            "LD_PRELOAD=v "
        );
    }

    #[test]
    fn a_variable_too_long_for_its_new_name_is_refused() {
        let value = vec![b'x'; MAX_ARG_STRLEN - 3];
        let generation = SealedBundle::new(1, &[("A", &value)]).open(&memories()[1]).unwrap();
        let (policy, body) = (policy(&["*"]), body(&[Rename(b"LONGER=A")]));
        let refusal = select(&generation, &Decision::about_ids(&policy, PEER), &body).unwrap_err();
        assert!(refusal.text().contains("MAX_ARG_STRLEN"), "{}", refusal.text());
    }

    #[test]
    fn required_variables_must_be_in_the_launch_under_that_name() {
        let names = ["A", "B"];
        assert_eq!(launch(&names, &["*"], &[Require(b"A")]).unwrap(), "A=v B=v ");
        assert_eq!(launch(&names, &["*"], &[Require(b"X"), Rename(b"X=A")]).unwrap(), "B=v X=v ");
        assert!(refusal(&names, &["*"], &[Require(b"A"), Except(b"A")]).1.contains("left out"));
        assert!(refusal(&names, &["*"], &[Require(b"A"), Rename(b"X=A")]).1.contains("require X"));
    }

    #[test]
    fn too_much_for_execve_is_refused_with_the_names_of_the_largest() {
        let value = vec![b'x'; 100 << 10];
        let names: Vec<_> = (0..62).map(|number| format!("NAME_{number:02}")).collect();
        let mut variables: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_slice())).collect();
        let longer = vec![b'x'; 110 << 10];
        variables.push(("Z", &longer));
        let generation = SealedBundle::new(1, &variables).open(&memories()[1]).unwrap();
        let policy = policy(&["*"]);
        let decision = Decision::about_ids(&policy, PEER);
        let refusal = |items: &[Item<'_>]| {
            let body = body(items);
            select(&generation, &decision, &body).unwrap().check_len(&generation).err()
        };
        let text = refusal(&[]).unwrap().text().to_owned();
        assert!(text.contains("are Z (112643 bytes), NAME_"), "{text}");
        assert!(text.contains("6291456") && text.contains("--except"), "{text}");
        let renamed = refusal(&[Rename(b"LONG=Z")]).unwrap();
        assert!(renamed.text().contains("LONG (112646 bytes)"), "{}", renamed.text());
        assert_eq!(refusal(&[Except(b"Z"), Except(b"NAME_01"), Except(b"NAME_02")]), None);
    }

    #[test]
    fn a_broken_body_is_refused() {
        let (generation, policy) = (generation(&["A"]), policy(&["*"]));
        let refusal = select(&generation, &Decision::about_ids(&policy, PEER), b"\x09\x01\x00a").unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Invalid);
    }

    proptest! {
        #[test]
        fn a_launch_gets_nothing_that_is_not_granted_and_its_names_ascend(
            names in proptest::collection::btree_set("[AB]{1,3}", 0..8),
            env in proptest::collection::vec("[AB*?]{1,3}", 1..3),
            items in proptest::collection::vec((0u8..4, "[AB]{1,3}", "[ABX]{1,3}"), 0..6),
        ) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let env: Vec<_> = env.iter().map(String::as_str).collect();
            let renames: Vec<_> = items.iter().map(|(_, name, new)| format!("{new}={name}")).collect();
            let items: Vec<_> = items.iter().zip(&renames).map(|((kind, name, _), rename)| match kind {
                0 => Only(name.as_bytes()),
                1 => Except(name.as_bytes()),
                2 => Require(name.as_bytes()),
                _ => Rename(rename.as_bytes()),
            }).collect();
            let (generation, policy, body) = (generation(&names), policy(&env), body(&items));
            let decision = Decision::about_ids(&policy, PEER);
            let Ok(selection) = select(&generation, &decision, &body) else { return Ok(()) };
            let injected = selection.names(&generation);
            prop_assert!(injected.windows(2).all(|pair| pair[0] < pair[1]));
            let mut room = vec![0; selection.len(&generation)];
            selection.copy_to(&generation, &mut room);
            prop_assert_eq!(injected.len(), selection.count(&generation));
            if let Selection::Picked(picks) = &selection {
                prop_assert!(picks.iter().all(|pick| decision.allows(generation.name(pick.at).as_bytes())));
            } else {
                prop_assert!(names.iter().all(|name| decision.allows(name.as_bytes())));
            }
        }
    }
}
