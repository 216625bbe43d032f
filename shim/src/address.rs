//! The path of the daemon's Unix socket.

/// Longest path of a Unix socket, in bytes, without its NUL: unix(7).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

const AF_UNIX: u16 = 1;

/// `struct sockaddr_un` of unix(7), with a NUL after the path.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct SocketAddress {
    family: u16,
    path: [u8; MAX_SOCKET_PATH + 1],
}

/// The path is empty or longer than [`MAX_SOCKET_PATH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidSocketPath;

impl SocketAddress {
    /// The address of the socket at `path`, which has no NUL.
    ///
    /// # Errors
    /// [`InvalidSocketPath`].
    pub(crate) fn new(path: &[u8]) -> Result<Self, InvalidSocketPath> {
        if path.is_empty() || path.len() > MAX_SOCKET_PATH {
            return Err(InvalidSocketPath);
        }
        let mut address = Self { family: AF_UNIX, path: [0; MAX_SOCKET_PATH + 1] };
        address.path[..path.len()].copy_from_slice(path);
        Ok(address)
    }

    /// The path, without its NUL.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.path.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use devbox_launch_proto::LAUNCH_SOCKET;

    use super::*;

    #[test]
    fn a_path_keeps_room_for_its_nul() {
        assert!(SocketAddress::new(&[b'p'; MAX_SOCKET_PATH]).is_ok());
        assert_eq!(SocketAddress::new(&[b'p'; MAX_SOCKET_PATH + 1]).err(), Some(InvalidSocketPath));
        assert_eq!(SocketAddress::new(b"").err(), Some(InvalidSocketPath));
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let address = SocketAddress::new(LAUNCH_SOCKET.as_bytes()).unwrap();
        assert_eq!(size_of_val(&address), 110);
        assert_eq!(address.path[LAUNCH_SOCKET.len()], 0);
        assert_eq!(address.path(), LAUNCH_SOCKET.as_bytes());
    }
}
