//! `GET /explain?pid=N&uid=N&gid=N`: the decision about a process. The caller supplies uid and gid,
//! because the daemon may not be able to see the process.

use std::path::Path;
use std::sync::Arc;

use crate::access::authorize::authorize_unverified;
use crate::access::explain::Explanation;
use crate::access::peer::{Cgroups, Examiner, Peer};
use crate::config::Settings;

#[must_use]
pub(crate) fn target(peer: Peer) -> String {
    let Peer { uid, gid, pid } = peer;
    format!("/explain?pid={pid}&uid={uid}&gid={gid}")
}

/// The peer of a query; `None` if the query is invalid.
#[must_use]
pub(crate) fn parse(query: &str) -> Option<Peer> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let pid = value("pid")?.parse().ok().filter(|pid| *pid > 0)?;
    Some(Peer { uid: value("uid")?.parse().ok()?, gid: value("gid")?.parse().ok()?, pid })
}

/// The decision without a daemon, by the configuration file and by what this process can see.
pub async fn from_file(settings: &Settings, admin_socket: &Path, peer: Peer) -> Explanation {
    let file = settings.file.as_deref().map_or_else(
        || "the built-in rule (there is no configuration file)".to_owned(),
        |file| file.display().to_string(),
    );
    let decided_by = format!("{file}; no daemon runs at {}", admin_socket.display());
    let examiner = Examiner::new(Cgroups::of_this_machine());
    let decision = authorize_unverified(Arc::new(settings.policy.clone()), &examiner, peer).await;
    Explanation::new(decided_by, &decision, None::<std::iter::Empty<&str>>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_asked_and_nothing_else_is_one() {
        let peer = Peer { uid: 1000, gid: 7, pid: 4711 };
        let asked = target(peer);
        assert_eq!(parse(asked.strip_prefix("/explain?").unwrap()), Some(peer));
        for query in
            ["", "pid=1", "pid=1&uid=2", "pid=0&uid=1&gid=1", "pid=-1&uid=1&gid=1", "pid=x&uid=1&gid=1"]
        {
            assert_eq!(parse(query), None, "{query}");
        }
    }
}
