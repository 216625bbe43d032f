//! The harness of the end-to-end tests: it starts the real programs, each test in a directory of its own.
//!
//! - [`programs`]: where the built programs are;
//! - [`process`]: one running program, its log, and its end;
//! - [`world`]: a directory with a server, and the daemons and launches that belong to it;
//! - [`server`], [`daemon`], [`launch`]: the three programs;
//! - [`attempt`]: a launch while things go wrong; [`trace`]: the check for values left behind;
//! - [`relay`], [`netns`]: a bad network between daemon and server; [`clock`]: a clock that is wrong;
//! - [`client`], [`tls`], [`devbox`]: HTTP/1.1 and HTTP/2, TLS 1.3 with or without a certificate, a devbox made by hand;
//! - [`authority`], [`bundle`]: the devbox CA and the sealed bundles of a control plane that a test plays;
//! - [`continuity`]: a machine and the steps by which its requests follow on each other;
//! - [`crowd`]: thousands of peers that break a listener's protocol;
//! - [`canary`], [`memory`]: random values, and where on a machine they can be found;
//! - [`forensics`]: traces, cores, swap, and the whole memory of virtual machines;
//! - [`machine`]: a machine with a real systemd, and this project installed on it; [`cgroup`]: a unit's in the kernel;
//! - [`sdk`]: the interpreters and packages that other languages' clients need;
//! - [`needs`]: the requirements of a test, which is skipped, or fails under CI, if one is missing;
//! - [`wait`]: conditions with a deadline, because no test sleeps for a fixed time.
//!
//! A failure of the harness is a failed test: it panics with the expectation. Tokens and values are plain strings
//! here; they are made for one test.
#![forbid(unsafe_code)]

pub mod attempt;
pub mod authority;
pub mod bundle;
pub mod canary;
pub mod cgroup;
pub mod client;
pub mod clock;
pub mod continuity;
pub mod crowd;
pub mod daemon;
pub mod devbox;
pub mod forensics;
pub mod launch;
pub mod machine;
pub mod memory;
pub mod needs;
pub mod netns;
pub mod process;
pub mod programs;
pub mod relay;
pub mod sdk;
pub mod server;
pub mod snapshot;
pub mod tls;
pub mod trace;
pub mod wait;
pub mod world;
