//! The real program is quiesced, resumes, learns that it is a copy, and changes its certificate under load.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::Permissions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devbox_secrets_proto::devbox::{CONTINUED_ELSEWHERE, IN_USE_ELSEWHERE};
use devbox_secretsd::restart::keyring::Keyring;
use devbox_secretsd::status::{State, Status};
use hyper::StatusCode;
use nix::sys::socket::{MsgFlags, recv};
use tokio::time::{sleep, timeout};

use devbox_secrets_tests::authority::{Authority, DEVBOX, TOKEN_SECRET, Validity};
use devbox_secrets_tests::needs::skipped;
use support::control_plane::{ControlPlane, Script, bundle};
use support::daemon::Daemon;
use support::launch::launch;

const RESUME: [&str; 3] = ["resume", "--join-token-file", "-"];

async fn ready() -> (Arc<ControlPlane>, Daemon) {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    let daemon = Daemon::start(&plane, &[]);
    daemon.until_ready().await;
    (plane, daemon)
}

fn holds_nothing(status: &Status) -> bool {
    status.secrets.is_empty() && status.memory.bytes_locked == 0 && status.certificate_expires_ms.is_none()
}

#[tokio::test]
async fn quiesce_leaves_nothing_and_a_fresh_token_brings_everything_back() {
    let (plane, daemon) = ready().await;
    daemon.operator(&["quiesce"], "").await.success();
    let status = daemon.until(|_| true).await;
    assert!(status.state == State::Quiesced && holds_nothing(&status), "{status:?}");
    assert!(status.reason.unwrap().contains("devbox-secretsd resume"));
    plane.until(|seen| seen.open == 0).await;
    daemon.operator(&["quiesce"], "").await.success();

    plane.answer(bundle(2, &[("API_KEY", "two")]));
    daemon.operator(&RESUME, &plane.token()).await.success();
    let status = daemon.until(|_| true).await;
    assert_eq!((status.state, status.revision), (State::Ready, Some(2)));
    assert_eq!(plane.seen().enrolled, 2);
    assert!(!daemon.log().contains(TOKEN_SECRET), "a trace log holds the join token");
}

#[tokio::test]
async fn a_daemon_that_has_not_joined_yet_is_quiesced_as_well() {
    let plane = ControlPlane::start(bundle(1, &[])).await;
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "starting up"));
    let daemon = Daemon::start(&plane, &[]);
    daemon.until(|status| status.last_error.is_some()).await;
    daemon.operator(&["quiesce"], "").await.success();
    let enrolled = plane.until(|seen| seen.open == 0).await.enrolled;
    *plane.enrol_refusal.lock().unwrap() = None;
    daemon.operator(&RESUME, &plane.token()).await.success();
    assert_eq!(plane.seen().enrolled, enrolled + 1, "no attempt was made in between");
}

#[tokio::test]
async fn a_used_token_leaves_it_quiesced_with_the_reason() {
    let (plane, daemon) = ready().await;
    daemon.operator(&["quiesce"], "").await.success();
    *plane.enrol_refusal.lock().unwrap() =
        Some((StatusCode::UNAUTHORIZED, "the join token was used already"));
    let refused = daemon.operator(&RESUME, &plane.token()).await;
    assert_eq!(refused.status, 1);
    for part in ["used already", "pass it to devbox-secretsd resume"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let status = daemon.until(|_| true).await;
    assert!(status.state == State::Quiesced && status.reason.unwrap().contains("used already"));
    *plane.enrol_refusal.lock().unwrap() = None;
    daemon.operator(&RESUME, &plane.token()).await.success();
}

#[tokio::test]
async fn resume_refuses_an_invalid_token_and_a_daemon_that_serves() {
    let (plane, daemon) = ready().await;
    let serving = daemon.operator(&RESUME, &plane.token()).await;
    assert!(serving.status == 1 && serving.stderr.contains("quiesce it first"), "{}", serving.stderr);
    daemon.operator(&["quiesce"], "").await.success();
    let no_token = daemon.operator(&["resume"], "").await;
    assert!(no_token.status == 1 && no_token.stderr.contains("--join-token-file"), "{}", no_token.stderr);
    assert_eq!(plane.seen().enrolled, 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_as_long_as_was_asked_and_then_goes_on() {
    let (plane, daemon) = ready().await;
    daemon.operator(&["quiesce"], "").await.success();
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "starting up"));
    let waited = daemon.operator(&[&RESUME[..], &["--wait", "1"]].concat(), &plane.token()).await;
    assert!(waited.status == 1 && waited.stderr.contains("starting up"), "{}", waited.stderr);
    *plane.enrol_refusal.lock().unwrap() = None;
    daemon.until_ready().await;
}

#[tokio::test]
async fn a_devbox_that_was_shut_down_comes_back_without_a_restart() {
    let (plane, daemon) = ready().await;
    plane.answer(Script::Refuse(StatusCode::FORBIDDEN, "the devbox was shut down"));
    daemon.until(|status| status.state == State::Lost).await;
    plane.answer(bundle(1, &[("API_KEY", "one")]));
    daemon.operator(&RESUME, &plane.token()).await.success();
    daemon.until_ready().await;
}

#[tokio::test]
async fn an_identity_that_went_on_elsewhere_is_wiped_and_not_used_again() {
    let (plane, daemon) = ready().await;
    plane.answer(Script::Forbid(CONTINUED_ELSEWHERE));
    let status = daemon.until(|status| status.state == State::Cloned).await;
    assert!(status.reason.as_ref().unwrap().contains("resume --join-token-file"), "{status:?}");
    daemon.until(holds_nothing).await;
    let asked = plane.until(|seen| seen.open == 0).await.bundles.len();
    plane.answer(bundle(2, &[("API_KEY", "two")]));
    daemon.operator(&RESUME, &plane.token()).await.success();
    assert_eq!(plane.seen().bundles[asked], None, "the first request after it is a new identity's");
    assert!(daemon.log().contains("another machine continues as this devbox"));
}

#[tokio::test]
async fn an_identity_in_use_elsewhere_is_tried_again_and_serves_until_its_lease_ends() {
    let (plane, daemon) = ready().await;
    plane.answer(Script::Forbid(IN_USE_ELSEWHERE));
    let status = daemon.until(|status| status.last_error.is_some()).await;
    assert_eq!(status.state, State::Ready);
    let asked = plane.seen().bundles.len();
    plane.until(|seen| seen.bundles.len() > asked + 1).await;
    plane.answer(bundle(2, &[("API_KEY", "two")]));
    daemon.until(|status| status.revision == Some(2)).await;
}

/// A service manager that does what it is told, and says that it has (`BARRIER=1`) when it is let.
struct Manager {
    told: Arc<Mutex<Vec<String>>>,
    is_asked: Arc<AtomicBool>,
    let_answer: Sender<()>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let (told, is_asked) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (let_answer, answered) = channel();
        let (log, asked) = (Arc::clone(&told), Arc::clone(&is_asked));
        std::thread::spawn(move || {
            loop {
                let mut message = [0; 4_096];
                let len = recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_PEEK).unwrap();
                if message.starts_with(b"BARRIER=1") {
                    asked.store(true, SeqCst);
                    // Or the test is over.
                    let _ = answered.recv();
                }
                // The descriptor that came with it is closed now.
                socket.recv(&mut message).unwrap();
                log.lock().unwrap().push(String::from_utf8_lossy(&message[..len]).into_owned());
            }
        });
        Self { told, is_asked, let_answer }
    }

    async fn until_asked(&self) {
        let asked = async {
            while !self.is_asked.load(SeqCst) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(support::PATIENCE, asked)
            .await
            .expect("the service manager is never asked whether it is done");
    }
}

#[tokio::test]
async fn quiesce_is_not_over_before_the_service_manager_has_let_go() {
    if let Err(error) = Keyring::open() {
        return skipped(&format!("a keyring: {error}"));
    }
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::at(&dir.path().join("notify"));
    let daemon = Daemon::notifying(&plane, &dir.path().join("notify"));
    daemon.until_ready().await;
    let mut quiesce = std::pin::pin!(daemon.operator(&["quiesce"], ""));
    tokio::select! {
        _ = &mut quiesce => panic!("it is over"),
        () = manager.until_asked() => {}
    }
    let removed = |told: &[String]| told.iter().filter(|text| text.contains("FDSTOREREMOVE=1")).count();
    assert_eq!(removed(&manager.told.lock().unwrap()), 2, "identity and secrets");
    manager.let_answer.send(()).unwrap();
    quiesce.await.success();
}

#[tokio::test]
async fn a_service_manager_that_does_not_read_stops_no_launch_and_hears_of_readiness_once_it_reads() {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    let dir = tempfile::tempdir().unwrap();
    let notify = dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"STATUS=of another unit", &notify).is_ok() {}

    let daemon = Daemon::notifying(&plane, &notify);
    daemon.until_ready().await;
    assert_eq!(launch(&daemon.launch_socket()).await.unwrap(), "API_KEY=one\0");
    plane.answer(bundle(2, &[("API_KEY", "two")]));
    daemon.until(|status| status.revision == Some(2)).await;
    assert_eq!(launch(&daemon.launch_socket()).await.unwrap(), "API_KEY=two\0");

    manager.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut message = [0; 4_096];
    loop {
        let len = manager.recv(&mut message).expect("readiness never arrives");
        if &message[..len] == b"READY=1" {
            break;
        }
    }
}

#[tokio::test]
async fn resume_warns_of_a_token_that_others_can_read() {
    let (plane, daemon) = ready().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, plane.token()).unwrap();
    let resume = ["resume", "--join-token-file", path.to_str().unwrap()];
    for (mode, is_told) in [(0o640, true), (0o600, false)] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let said = daemon.operator(&resume, "").await.stderr;
        assert_eq!(said.contains("chmod 600"), is_told, "{said}");
    }
}

/// A devbox's three files, replaced as by rename(2).
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(authority: &Authority, validity: Validity) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.put("ca.pem", &authority.pem);
        files.issue(authority, DEVBOX, validity);
        files
    }

    fn issue(&self, authority: &Authority, devbox: &str, validity: Validity) {
        let (certificate, key) = authority.devbox(devbox, validity);
        self.put("key.pem", &key);
        self.put("cert.pem", &certificate);
    }

    fn put(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn daemon(&self, plane: &ControlPlane) -> Daemon {
        let paths = ["cert.pem", "key.pem", "ca.pem"].map(|name| self.path(name));
        let daemon = Daemon::with_files(&plane.url(), paths);
        daemon.until_ready().await;
        daemon
    }
}

#[tokio::test]
async fn replaced_certificate_files_are_taken_up_once_they_fit_together() {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    let files = Files::new(&plane.authority, Validity::NORMAL);
    let daemon = files.daemon(&plane).await;
    let before = daemon.until_ready().await.certificate_expires_ms;

    let (certificate, key) = plane.authority.devbox(DEVBOX, Validity { left: 7_200, ..Validity::NORMAL });
    files.put("cert.pem", &certificate);
    daemon.until_logged("are no valid identity yet").await;
    files.put("key.pem", &key);
    let status = daemon.until(|status| status.certificate_expires_ms > before).await;
    assert_eq!(status.state, State::Ready);
    let asked = plane.seen().bundles.len();
    plane.answer(bundle(2, &[("API_KEY", "two")]));
    plane.until(|seen| seen.bundles.len() > asked).await;
    daemon.until(|status| status.revision == Some(2)).await;

    files.issue(&plane.authority, "dbx_other", Validity::NORMAL);
    daemon.until_logged("belong to another devbox").await;
    assert_eq!(daemon.until(|_| true).await.certificate_expires_ms, status.certificate_expires_ms);
}

#[tokio::test]
async fn a_certificate_that_is_replaced_before_its_end_leaves_no_gap() {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "no renewals here"));
    let files = Files::new(&plane.authority, Validity { age: Duration::from_secs(60), left: 15 });
    let daemon = files.daemon(&plane).await;
    let end = daemon.until_ready().await.certificate_expires_ms.unwrap();
    files.issue(&plane.authority, DEVBOX, Validity::NORMAL);
    let status = daemon.until(|status| status.certificate_expires_ms > Some(end)).await;
    assert_eq!(status.state, State::Ready);
    daemon.until(|_| devbox_secretsd::sys::now_ms() > end).await;
    assert_eq!(daemon.until(|_| true).await.state, State::Ready);
    assert!(!daemon.log().contains("secrets wiped"));
}

#[tokio::test]
async fn a_certificate_that_expired_and_is_replaced_afterwards_brings_service_back() {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    *plane.enrol_refusal.lock().unwrap() = Some((StatusCode::SERVICE_UNAVAILABLE, "no renewals here"));
    let files = Files::new(&plane.authority, Validity { age: Duration::from_secs(60), left: 15 });
    let daemon = files.daemon(&plane).await;
    daemon.until(|status| status.state == State::Lost).await;
    files.issue(&plane.authority, DEVBOX, Validity::NORMAL);
    daemon.until_ready().await;
}

#[tokio::test]
async fn renewal_after_renewal_leaves_no_moment_without_secrets() {
    let plane = ControlPlane::start(bundle(1, &[("API_KEY", "one")])).await;
    *plane.issued_validity.lock().unwrap() = Validity { age: Duration::from_secs(2), left: 7 };
    let daemon = Daemon::start(&plane, &[]);
    daemon.until_ready().await;
    daemon
        .until(|status| {
            assert_eq!(status.state, State::Ready, "{status:?}");
            plane.seen().renewed >= 3
        })
        .await;
    assert_eq!(plane.seen().enrolled, 1);
}
