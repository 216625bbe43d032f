//! `executable` and `sha256`: the program that a process runs, by its path and by its contents.
//!
//! Both narrow a rule down and say too little by themselves, because everybody may run a program that everybody can
//! execute.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::{Condition, InvalidCondition, Matcher};
use crate::access::peer::{Digest, Facts, InvalidDigest, Peer, Questions};
use crate::access::policy::RuleConfig;
use crate::access::policy::mismatch::{Found, Mismatch};

#[derive(Debug)]
struct Executable(String);

#[derive(Debug)]
struct Sha256 {
    /// The same rule's executable: only files that a rule names are hashed.
    path: String,
    digest: Digest,
}

#[derive(Debug, Error)]
#[error("has the executable {0:?}: write an absolute path without . and .., as readlink -f prints it")]
struct InvalidPath(String);

#[derive(Debug, Error)]
#[error("has an invalid sha256: {0}")]
struct InvalidSha256(InvalidDigest);

pub(super) fn path(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    let path = rule.executable.as_ref()?;
    Some(if is_canonical(path) {
        Ok(Arc::new(Executable(path.clone())))
    } else {
        Err(InvalidPath(path.clone()).into())
    })
}

pub(super) fn digest(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    let digest = rule.sha256.as_ref()?.parse().map_err(InvalidSha256);
    let path = rule.executable.clone().unwrap_or_default();
    Some(digest.map(|digest| Arc::new(Sha256 { path, digest }) as Condition).map_err(Into::into))
}

/// The path is compared with the kernel's, so it has to be written as the kernel does.
fn is_canonical(path: &str) -> bool {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain)) && !path.contains('\0')
}

impl Matcher for Executable {
    fn is_met_by_ids(&self, _: Peer) -> Option<bool> {
        None
    }

    fn ask(&self, questions: &mut Questions) {
        questions.add_executable(&self.0, false);
    }

    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let found = match &facts.executable {
            Ok(executable) if executable.path == self.0 => return None,
            Ok(executable) => Found::Text(&executable.path),
            Err(obstacle) => Found::Unknown(*obstacle),
        };
        Some(Mismatch { fact: "executable", wanted: &self.0, found })
    }
}

impl Matcher for Sha256 {
    fn is_met_by_ids(&self, _: Peer) -> Option<bool> {
        None
    }

    fn ask(&self, questions: &mut Questions) {
        questions.add_executable(&self.path, true);
    }

    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let found = match facts.executable.as_ref().map(|executable| &executable.digest) {
            Ok(Ok(digest)) if *digest == self.digest => return None,
            Ok(Ok(digest)) => Found::Value(digest),
            Ok(Err(obstacle)) | Err(obstacle) => Found::Unknown(*obstacle),
        };
        Some(Mismatch { fact: "sha256", wanted: &self.digest, found })
    }
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executable {}", self.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256 {}", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_the_kernel_would_write_otherwise_is_refused() {
        for bad in ["", "/", "x", "/a//b", "/a/./b", "/a/../b", "/a/", "/a\0"] {
            assert!(!is_canonical(bad), "{bad:?}");
        }
        for good in ["/a", "/usr/bin/a b", "/a/..b", "/ä"] {
            assert!(is_canonical(good), "{good:?}");
        }
    }
}
