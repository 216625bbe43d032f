//! Says what a process would get if it launched now.

use super::LaunchState;
use crate::access::peer::{Peer, Process};
use crate::access::policy::Explanation;

impl LaunchState {
    /// What the policy in force decides about `peer`, from what this daemon can see of it, and about each variable that is
    /// held. Its numbers are believed: nothing is handed out.
    pub async fn explain(&self, peer: Peer) -> Explanation {
        let policy = self.policy.load_full();
        let process = Process::to_explain(peer.pid);
        let facts = self.examiner.examine(peer, process, policy.all_questions()).await;
        let held = self.vault.current().ok();
        let names = held.as_ref().map(|generation| generation.variables().map(|variable| variable.name));
        Explanation::new("the running daemon".to_owned(), &policy, &facts, names)
    }
}
