//! Answers that our daemon never gives. Each is one line and status 125, and no command runs.

use std::io::Write;
use std::os::unix::net::UnixListener;

use devbox_launch_proto::{Answer, ErrorCode};

use crate::peer::{Peer, Script, descriptor, header, inline, raw, socket_in};
use crate::run::{environment, failure, limited_shim, message, run, shim, success};
use crate::secret_file::{empty_file, secret_file};

/// The program's line after this answer.
fn refused(script: Script) -> String {
    let peer = Peer::new(vec![script]);
    failure(&run(&mut shim(&peer.socket()), ["echo", "ran"]), 125)
}

fn with_descriptor(payload: &[u8], count: usize, len: usize) -> Script {
    raw(&header(Answer::Descriptor, count, len), vec![secret_file(payload)])
}

#[test]
fn another_protocol_is_recognised() {
    let line = refused(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", vec![]));
    assert!(line.contains("not of the launch protocol"), "{line}");
}

#[test]
fn another_version_is_recognised() {
    let mut bytes = header(Answer::Inline, 0, 0);
    bytes[4] = 2;
    let line = refused(raw(&bytes, vec![]));
    assert!(line.contains("another version") && line.contains("one release"), "{line}");
}

#[test]
fn an_answer_cut_short_anywhere_is_refused() {
    let whole = [&header(Answer::Inline, 1, 4)[..], b"A=1\0"].concat();
    for len in [0, 1, 15, 16, 19] {
        let line = refused(raw(&whole[..len], vec![]));
        assert!(line.contains("closed the connection before its answer was complete"), "{len}: {line}");
    }
}

#[test]
fn descriptors_are_neither_missing_nor_too_many_nor_unasked_for() {
    let good = header(Answer::Descriptor, 1, 4);
    let file = || secret_file(b"A=1\0");
    assert!(refused(raw(&good, vec![])).contains("without its descriptor"));
    assert!(refused(raw(&good, vec![file(), file()])).contains("more than one descriptor"));
    assert!(refused(raw(&good, vec![file(), file(), file()])).contains("more than one descriptor"));
    let unasked = [&header(Answer::Inline, 1, 4)[..], b"A=1\0"].concat();
    assert!(refused(raw(&unasked, vec![file()])).contains("should not have"));
}

#[test]
fn a_file_shorter_than_it_says_is_refused_before_it_is_touched() {
    assert!(refused(with_descriptor(b"A=1\0", 1, 5)).contains("shorter"));
    assert!(refused(with_descriptor(b"A=1\0", 1, 1 << 30)).contains("shorter"));
    let line = refused(raw(&header(Answer::Descriptor, 1, 4), vec![empty_file()]));
    assert!(line.contains("shorter"), "{line}");
}

#[test]
fn counts_that_are_wrong_are_refused() {
    for count in [1, 3] {
        assert!(refused(with_descriptor(b"A=1\0B=2\0", count, 8)).contains("not as many variables"));
    }
    assert!(refused(with_descriptor(b"A=1\0B=2x", 2, 8)).contains("not as many variables"));
}

#[test]
fn names_that_are_wrong_are_refused() {
    let line = refused(with_descriptor(b"A B=1\0", 1, 6));
    assert!(line.contains("name is invalid"), "{line}");
    assert!(refused(descriptor(&[("B", "1"), ("A", "2")])).contains("not in order"));
    assert!(refused(inline(&[("A", "1"), ("A", "2")])).contains("not in order"));
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let line = refused(raw(&[&header(Answer::Names, 1, 2)[..], b"A\0"].concat(), vec![]));
    assert!(line.contains("another question"), "{line}");
    let peer = Peer::new(vec![inline(&[("A", "1")])]);
    failure(&run(&mut shim(&peer.socket()), ["--list"]), 125);
}

#[test]
fn a_payload_that_no_memory_can_hold_is_refused() {
    let line = refused(raw(&header(Answer::Inline, 1, u32::MAX as usize), vec![]));
    assert!(line.contains("closed the connection") || line.contains("mmap"), "{line}");
}

#[test]
fn secrets_withdrawn_on_their_way_are_asked_for_again() {
    let peer = Peer::new(vec![
        with_descriptor(&[0; 8], 2, 8),
        with_descriptor(b"\0\0\0\0B=2\0", 2, 8),
        // Marked, and not wiped yet.
        with_descriptor(b"A=1\0B=2\0\x01", 2, 8),
        // Wiped but for the mark, and half wiped: never a defect of the daemon.
        with_descriptor(b"\0\0\0\0\0\0\0\0\x01", 2, 8),
        with_descriptor(b"A=1\0\0\0\0\0\x01", 2, 8),
        inline(&[("A", "1")]),
    ]);
    let output = run(&mut shim(&peer.socket()), ["--clear-env", "env", "-0"]);
    assert_eq!(environment(success(&output)), ["A=1"]);
    let peer = Peer::new(vec![with_descriptor(&[0; 8], 2, 8)]);
    let line = failure(&run(&mut shim(&peer.socket()), ["--wait=0", "echo", "ran"]), 125);
    assert!(line.contains("withdrawn while this launch was starting"), "{line}");
}

#[test]
fn optional_passes_over_a_count_that_no_memory_can_hold() {
    // 8 MiB of strings at two bytes each need 32 MiB of pointers.
    let answer = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        raw(&header(Answer::Descriptor, 4 << 20, 8 << 20), vec![file.into()])
    };
    let launch = |options: &[&str]| {
        let peer = Peer::new(vec![answer()]);
        run(limited_shim("-v 24000", &peer.socket()).args(options), ["--clear-env", "/bin/echo", "ran"])
    };
    assert!(failure(&launch(&[]), 125).contains("not enough memory for the variables"));
    let output = launch(&["--optional"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"ran\n"[..]), "{}", message(&output));
    assert!(message(&output).contains("warning: running without secrets"), "{}", message(&output));
}

#[test]
fn optional_passes_over_an_answer_that_is_broken() {
    let peer = Peer::new(vec![with_descriptor(b"B=1\0A=2\0", 2, 8)]);
    let output = run(&mut shim(&peer.socket()), ["--optional", "--clear-env", "env"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b""[..]));
    assert!(message(&output).contains("warning: running without secrets"), "{}", message(&output));
}

/// Each round is a race between the request and the closing; the daemon's answer must win each of them.
#[test]
fn a_daemon_that_hangs_up_before_it_reads_is_still_heard() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket_in(folder.path())).unwrap();
    let busy = [&header(Answer::Error(ErrorCode::Busy), 0, 8)[..], b"too many"].concat();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.write_all(&busy).unwrap();
        }
    });
    for _ in 0..100 {
        let line = failure(&run(&mut shim(&socket_in(folder.path())), ["echo", "ran"]), 125);
        assert!(line.contains("too many"), "{line}");
    }
}
