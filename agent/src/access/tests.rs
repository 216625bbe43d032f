//! Decisions about invented processes. Real processes are in the tests of `peer` and `launch`.

use std::sync::Arc;

use proptest::prelude::*;

use super::authorize::Decision;
use super::explain::Explanation;
use super::glob::Glob;
use super::policy::*;
use crate::access::peer::{Digest, Executable, Facts, Learned, Obstacle, Peer, UnitName};

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn peer(uid: u32, gid: u32) -> Peer {
    Peer { uid, gid, pid: 1 }
}

fn facts(uid: u32, gid: u32) -> Facts {
    Facts::of(peer(uid, gid))
}

fn rule(uid: Option<u32>, gid: Option<u32>, allow: &[&str]) -> String {
    let id = |key: &str, id: Option<u32>| id.map(|id| format!("{key} = {id}\n")).unwrap_or_default();
    let any = if uid.or(gid).is_none() { "any = true\n" } else { "" };
    format!("{}{}{any}env = {allow:?}", id("uid", uid), id("gid", gid))
}

fn parsed<T: AsRef<str>>(rules: &[T]) -> Policy {
    let rules = rules.iter().map(|text| toml::from_str::<RuleConfig>(text.as_ref()).unwrap()).collect();
    Policy::from_config(rules).unwrap()
}

fn decide(policy: &Policy, facts: &Facts) -> Decision {
    Decision::new(Arc::new(policy.clone()), facts.clone())
}

fn allows(policy: &Policy, facts: &Facts, name: &str) -> bool {
    decide(policy, facts).allows(name.as_bytes())
}

fn in_unit(name: &str) -> Facts {
    Facts { unit: Ok(Some(UnitName::new(name).unwrap())), ..facts(1, 1) }
}

fn running(path: &str, digest: Learned<Digest>) -> Facts {
    Facts { executable: Ok(Executable { path: path.to_owned(), digest }), ..facts(1, 1) }
}

#[test]
fn without_rules_nobody_has_anything() {
    assert!(decide(&Policy::default(), &facts(0, 0)).is_denial());
}

#[test]
fn by_default_only_the_own_uid_has_everything() {
    let policy = Policy::own_uid_only(1000);
    assert!(decide(&policy, &facts(1000, 5)).allows_everything());
    assert!(allows(&policy, &facts(1000, 5), "API_KEY"));
    assert!(decide(&policy, &facts(0, 0)).is_denial());
}

#[test]
fn uid_and_gid_of_one_rule_must_both_hold_and_rules_add_up() {
    let policy = parsed(&["uid = 1\ngid = 2\nenv = ['A']", "uid = 1\nenv = ['B_*']"]);
    assert!(allows(&policy, &facts(1, 2), "A") && allows(&policy, &facts(1, 2), "B_X"));
    assert!(!allows(&policy, &facts(1, 3), "A") && allows(&policy, &facts(1, 3), "B_X"));
    assert!(!allows(&policy, &facts(2, 2), "A"));
}

#[test]
fn only_a_rule_that_names_uid_or_gid_names_a_user() {
    let policy = parsed(&["uid = 1\nenv = ['A']", "gid = 2\nunit = 'a.service'\nenv = ['A']"]);
    assert_eq!(policy.relation(peer(1, 9)), Relation::Named);
    assert_eq!(policy.relation(peer(9, 2)), Relation::Named);
    assert_eq!(policy.relation(peer(9, 9)), Relation::None);
    let policy = parsed(&["unit = 'a.service'\nenv = ['A']", "uid = 1\nenv = ['A']"]);
    assert_eq!(policy.relation(peer(9, 9)), Relation::Possible);
    assert_eq!(policy.relation(peer(1, 9)), Relation::Named);
}

#[test]
fn guarded_names_are_granted_by_their_exact_name_only() {
    let globs = parsed(&[rule(None, None, &["*", "LD_*", "PAT?"])]);
    let exact = parsed(&[rule(None, None, &["PATH", "LD_PRELOAD"])]);
    for name in ["PATH", "LD_PRELOAD"] {
        assert!(!allows(&globs, &facts(1, 1), name), "{name}");
        assert!(allows(&exact, &facts(1, 1), name), "{name}");
    }
}

#[test]
fn a_unit_must_be_known_and_match() {
    let policy = parsed(&["unit = 'app-*.service'\nenv = ['A']"]);
    assert!(allows(&policy, &in_unit("app-1.service"), "A"));
    assert!(!allows(&policy, &in_unit("other.service"), "A"));
    for unit in [Ok(None), Err(Obstacle::Ended), Err(Obstacle::NotAsked)] {
        assert!(!allows(&policy, &Facts { unit, ..facts(1, 1) }, "A"));
    }
}

#[test]
fn path_and_contents_of_an_executable_must_be_known_and_match() {
    let text = format!("any = true\nexecutable = '/usr/bin/x'\nsha256 = '{DIGEST}'\nenv = ['A']");
    let (policy, digest) = (parsed(&[&text]), DIGEST.parse().unwrap());
    assert!(allows(&policy, &running("/usr/bin/x", Ok(digest)), "A"));
    let other = DIGEST.replace('e', "f").parse().unwrap();
    for (path, digest) in [
        ("/usr/bin/y", Ok(digest)),
        ("/usr/bin/x", Ok(other)),
        ("/usr/bin/x", Err(Obstacle::NotAsked)),
        ("/usr/bin/x (deleted)", Ok(digest)),
    ] {
        assert!(!allows(&policy, &running(path, digest), "A"), "{path} {digest:?}");
    }
    assert!(!allows(&policy, &facts(1, 1), "A"));
}

#[test]
fn ids_that_settle_a_rule_need_no_look_at_the_process() {
    let policy = parsed(&[
        "uid = 1\nenv = ['A']",
        "uid = 2\nunit = 'a.service'\nenv = ['A']",
        "uid = 2\nexecutable = '/x'\nenv = ['A']",
        &format!("uid = 2\nexecutable = '/x'\nsha256 = '{DIGEST}'\nenv = ['B']"),
    ]);
    assert_eq!(policy.questions(peer(1, 1)), None);
    assert_eq!(policy.questions(peer(3, 1)), None);
    let asked = policy.questions(peer(2, 1)).unwrap();
    assert_eq!((asked.units.len(), asked.executables.len(), asked.any_executable), (1, 1, false));
    assert!(asked.executables[0].digest);
    assert!(policy.names_executables() && !Policy::own_uid_only(0).names_executables());
}

#[test]
fn the_operator_learns_in_one_line_why_each_rule_does_not_apply() {
    let policy = parsed(&[
        "name = 'ci'\nuid = 7\nenv = ['*']",
        "unit = 'app.service'\nenv = ['*']",
        "uid = 1\nenv = ['DB_*']",
        "uid = 1\nexecutable = '/x'\nenv = ['*']",
    ]);
    let facts = Facts { unit: Ok(None), ..running("/tmp/\n", Err(Obstacle::NotAsked)) };
    let why = decide(&policy, &facts).why_not(Some("PATH"));
    assert_eq!(
        why,
        "rule 1 (\"ci\"): uid is 1, not 7; rule 2: it is not in unit app.service; rule 3: does not grant PATH by its exact \
         name; rule 4: executable is /tmp/\\n, not /x"
    );
    assert!(decide(&policy, &facts).why_not(Some("API")).contains("rule 3: does not grant API;"));
    assert_eq!(decide(&Policy::default(), &facts).why_not(None), "there is no rule");
    let many = parsed(&vec![rule(Some(9), None, &["A"]); 40]);
    assert!(decide(&many, &facts).why_not(None).ends_with("; and 24 more"));
}

#[test]
fn an_explanation_names_the_rule_of_each_variable_and_the_reason_of_each_rule() {
    let policy = parsed(&[
        "name = 'db'\nuid = 1\nenv = ['DB_*', 'PATH']",
        "uid = 2\nunit = 'app.service'\nenv = ['*']",
        "uid = 1\nenv = ['*']",
    ]);
    let names = ["DB_PASS", "LD_PRELOAD", "PATH", "TOKEN"];
    let explanation = Explanation::new(
        "a test".to_owned(),
        &decide(&policy, &in_unit("other.service")),
        Some(names.into_iter()),
    );
    let by: Vec<_> =
        explanation.variables.iter().flatten().map(|variable| variable.rule.as_deref()).collect();
    assert_eq!(by, [Some("1 (\"db\")"), None, Some("1 (\"db\")"), Some("3")]);
    let why = &explanation.rules[1].mismatches;
    assert_eq!(*why, ["uid is 1, not 2", "unit is other.service, not app.service"]);
    let text = explanation.to_string();
    for part in [
        "unit         other.service",
        "not known: no rule asks for it",
        "no: uid is 1, not 2; unit is",
        "names it exactly",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(
        serde_json::from_str::<Explanation>(&serde_json::to_string(&explanation).unwrap()).unwrap(),
        explanation
    );
}

#[test]
fn the_table_of_rules_says_whom_each_is_about() {
    let policy = parsed(&[
        "name = 'ci'\nuid = 7\ngid = 8\nunit = 'a@*.service'\nenv = ['A', 'B_*']",
        "any = true\nenv = ['*']",
    ]);
    let expected = "RULE      ABOUT                           MAY HAVE\n\
                    1 (\"ci\")  uid 7, gid 8, unit a@*.service  A, B_*\n\
                    2         everybody                       *\n";
    assert_eq!(table::rules(&policy), expected);
    assert!(table::rules(&Policy::default()).contains("nobody"));
}

/// Few names, so that rules and processes often meet.
fn unit_name() -> impl Strategy<Value = String> {
    "[ab]{1,2}\\.service"
}

proptest! {
    #[test]
    fn a_grant_needs_a_rule_that_applies_to_the_peer_and_matches_the_name(
        rules in proptest::collection::vec(
            (proptest::option::of(0u32..3), proptest::option::of(0u32..3), "[AB*?]{1,4}"), 0..4),
        uid in 0u32..3, gid in 0u32..3, name in "[AB]{1,4}",
    ) {
        let about = |of: &Option<u32>, id| of.is_none_or(|wanted| wanted == id);
        let granted = rules.iter().any(|(u, g, glob)| {
            about(u, uid) && about(g, gid) && Glob::new(glob).unwrap().matches(name.as_bytes())
        });
        let policy = parsed(&rules.iter().map(|(u, g, glob)| rule(*u, *g, &[glob])).collect::<Vec<_>>());
        prop_assert_eq!(allows(&policy, &facts(uid, gid), &name), granted);
    }

    #[test]
    fn the_questions_cover_all_facts_that_decide(
        rules in proptest::collection::vec(
            (0u32..2, proptest::option::of(unit_name()), proptest::option::of("/[ab]")), 0..4),
        uid in 0u32..2, unit in proptest::option::of(unit_name()), path in "/[ab]",
    ) {
        let rule = |(uid, unit, path): &(u32, Option<String>, Option<String>)| {
            let key = |key: &str, value: &Option<String>| {
                value.as_ref().map(|value| format!("{key} = '{value}'\n")).unwrap_or_default()
            };
            format!("uid = {uid}\n{}{}env = ['*']", key("unit", unit), key("executable", path))
        };
        let texts: Vec<String> = rules.iter().map(rule).collect();
        let policy = parsed(&texts);
        let unit = unit.map(|unit| UnitName::new(&unit).unwrap());
        let executable = Ok(Executable { path, digest: Err(Obstacle::NotAsked) });
        let all = Facts { unit: Ok(unit.clone()), executable, ..facts(uid, 0) };
        // The facts as an examiner returns them: only those that were asked for.
        let questions = policy.questions(peer(uid, 0)).unwrap_or_default();
        let asked = Facts {
            unit: if questions.units.is_empty() {
                Err(Obstacle::NotAsked)
            } else {
                Ok(unit.filter(|unit| questions.units.iter().any(|pattern| pattern.matches(unit))))
            },
            executable: if questions.executables.is_empty() { Err(Obstacle::NotAsked) } else { all.executable.clone() },
            ..facts(uid, 0)
        };
        prop_assert_eq!(decide(&policy, &all).is_denial(), decide(&policy, &asked).is_denial());
    }
}
