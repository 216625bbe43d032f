//! Peers of the listeners under test, in a process of their own: any user can run it, and any cgroup can hold it.
#![forbid(unsafe_code)]

use std::io::Write as _;

use devbox_secrets_tests::crowd::{Crowd, ask_as};

/// `crowd …` as [`Crowd::arguments`] has it, or `ask SOCKET NAME`: the answer to a peer of that abstract name.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["crowd", ref rest @ ..] => Crowd::from_arguments(rest).gather(),
        ["ask", socket, name] => {
            let answer = ask_as(name, socket.as_ref());
            std::io::stdout().write_all(&answer).expect("somebody reads the answer");
        }
        _ => panic!("crowd DIALECT TARGET PEERS HELD SECRET, or ask SOCKET NAME"),
    }
}
