//! The decision about one process with its reasons, for people and programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use devbox_secrets_proto::guarded::is_guarded;

use super::authorize::Decision;
use super::peer::{Facts, Learned, Obstacle};
use super::policy::Rule;
use super::policy::table::columns;

/// The decision about one process, with all its reasons. It holds no value, and no name of a
/// variable that the devbox does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The source of the rules.
    pub decided_by: String,
    /// The process.
    pub process: ExplainedProcess,
    /// Every rule, in order.
    pub rules: Vec<ExplainedRule>,
    /// The devbox's variables in ascending order of name; `None` without a running daemon, because
    /// only that knows them.
    #[serde(default)]
    pub variables: Option<Vec<ExplainedVariable>>,
}

/// The facts about the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedProcess {
    /// Process id.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Its unit, or why it is unknown.
    pub unit: String,
    /// Its executable, or why it is unknown.
    pub executable: String,
    /// The executable's SHA-256, or why it is unknown; `None` if no rule asks for it.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRule {
    /// Its number and name.
    pub rule: String,
    /// The processes it applies to.
    pub about: String,
    /// The patterns of names that it grants.
    pub env: Vec<String>,
    /// The conditions that this process does not meet; empty if the rule applies.
    pub mismatches: Vec<String>,
}

/// One variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedVariable {
    /// Its name.
    pub name: String,
    /// The first rule that grants it.
    #[serde(default)]
    pub rule: Option<String>,
    /// Whether it steers loaders or shells, so that only its exact name grants it.
    pub guarded: bool,
}

impl Explanation {
    #[must_use]
    pub(crate) fn new<'n>(
        decided_by: String,
        decision: &Decision,
        names: Option<impl Iterator<Item = &'n str>>,
    ) -> Self {
        let rules = decision.policy().rules().iter().enumerate();
        let variables = names.map(|names| names.map(|name| variable(decision, name)).collect());
        Self {
            decided_by,
            process: ExplainedProcess::of(decision.facts()),
            rules: rules.map(|(index, rule)| ExplainedRule::of(index, rule, decision.facts())).collect(),
            variables,
        }
    }
}

impl ExplainedProcess {
    fn of(facts: &Facts) -> Self {
        // Destructured, so that a new fact is explained too.
        let Facts { peer, unit, executable } = facts;
        let unit = unit.as_ref().map(|unit| unit.as_ref().map_or("none".to_owned(), ToString::to_string));
        let executable = executable.as_ref().map(|executable| executable.path.escape_default().to_string());
        let sha256 = facts.digest().map(|digest| digest.to_string());
        Self {
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
            unit: or_why(unit.map_err(|why| *why)),
            executable: or_why(executable.map_err(|why| *why)),
            sha256: (sha256 != Err(Obstacle::NotAsked)).then(|| or_why(sha256)),
        }
    }
}

fn or_why(learned: Learned<String>) -> String {
    learned.unwrap_or_else(|why| format!("not known: {why}"))
}

impl ExplainedRule {
    fn of(index: usize, rule: &Rule, facts: &Facts) -> Self {
        Self {
            rule: rule.label(index).to_string(),
            about: rule.applies_to_text(),
            env: rule.allow().iter().map(ToString::to_string).collect(),
            mismatches: rule.mismatches(facts).map(|mismatch| mismatch.to_string()).collect(),
        }
    }
}

fn variable(decision: &Decision, name: &str) -> ExplainedVariable {
    let rule = decision.granting(name.as_bytes()).map(|label| label.to_string());
    ExplainedVariable { name: name.to_owned(), rule, guarded: is_guarded(name.as_bytes()) }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "decided by   {}", self.decided_by)?;
        write!(f, "{}", self.process)?;
        let rows: Vec<[String; 4]> = self.rules.iter().map(ExplainedRule::row).collect();
        match rows.is_empty() {
            true => writeln!(f, "\nno rules: nobody may have anything")?,
            false => write!(f, "\n{}", columns(["RULE", "ABOUT", "MAY HAVE", "ABOUT THIS PROCESS?"], &rows))?,
        }
        match &self.variables {
            None => writeln!(f, "\nWhich variables the devbox has, only a running daemon knows."),
            Some(variables) if variables.is_empty() => writeln!(f, "\nThe devbox has no variables."),
            Some(variables) => write_variables(f, variables),
        }
    }
}

impl fmt::Display for ExplainedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "process      {}", self.pid)?;
        writeln!(f, "uid          {}", self.uid)?;
        writeln!(f, "gid          {}", self.gid)?;
        writeln!(f, "unit         {}", self.unit)?;
        writeln!(f, "executable   {}", self.executable)?;
        self.sha256.as_ref().map_or(Ok(()), |sha256| writeln!(f, "sha256       {sha256}"))
    }
}

impl ExplainedRule {
    fn row(&self) -> [String; 4] {
        let verdict = if self.mismatches.is_empty() {
            "yes".to_owned()
        } else {
            format!("no: {}", self.mismatches.join("; "))
        };
        [self.rule.clone(), self.about.clone(), self.env.join(", "), verdict]
    }
}

fn write_variables(f: &mut fmt::Formatter<'_>, variables: &[ExplainedVariable]) -> fmt::Result {
    let row = |variable: &ExplainedVariable| {
        let verdict = match (&variable.rule, variable.guarded) {
            (Some(rule), _) => format!("yes, by rule {rule}"),
            (None, true) => {
                "no: it steers what programs load or run, and no rule about this process names it exactly"
                    .to_owned()
            }
            (None, false) => "no: no rule about this process grants it".to_owned(),
        };
        [variable.name.clone(), verdict]
    };
    let rows: Vec<[String; 2]> = variables.iter().map(row).collect();
    write!(f, "\n{}", columns(["VARIABLE", "WOULD GET IT?"], &rows))
}
