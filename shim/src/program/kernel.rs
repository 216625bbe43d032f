//! The kernel: system calls, what it hands a new process, and the entry point. All unsafe code of the program.
//!
//! Everything public here is safe to call. Memory that it hands out lives until `execve(2)` or the exit, which free all
//! of it, and so is never freed before.
#![allow(unsafe_code, reason = "without libc somebody has to make the system calls; it is this file alone")]

use core::ffi::{CStr, c_char};
use core::ptr;
use core::slice;
use core::sync::atomic::AtomicU8;

use devbox_exec::address::SocketAddress;
use devbox_exec::client::{Received, Transport};
use devbox_launch_proto::{LARGEST_ROOM, marked_len};
use syscalls::{Errno, Sysno, syscall};

use super::abi::{
    AF_UNIX, AT_FDCWD, CLOCK_MONOTONIC, Control, F_DUPFD_CLOEXEC, F_OK, IoVec, MADV_DONTDUMP, MAP_ANONYMOUS,
    MAP_POPULATE, MAP_PRIVATE, MAP_SHARED, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_NOSIGNAL, Message, O_CLOEXEC,
    POLLIN, PROT_READ, PROT_WRITE, Poll, RLIMIT_STACK, SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET,
    Status, timespec,
};

pub(crate) const STANDARD_OUTPUT: i32 = 1;
pub(crate) const STANDARD_ERROR: i32 = 2;
/// Entries of most tables: a shell's environment, and a few secrets.
const USUAL_STRINGS: usize = 64;
/// The table of thousands of strings, in bytes.
const USUAL_TABLE: usize = 64 << 10;
/// Addresses for the table and for the secrets. They lie in the same 2 MiB as the program (`layout.ld`), so that the kernel makes
/// no page tables for them that it drops again at `execve(2)`. Hints only: mappings that do not fit there go elsewhere.
const TABLE_HINT: usize = 0x42_0000;
const SECRETS_HINT: usize = TABLE_HINT + USUAL_TABLE;

/// Strings that the kernel laid out for this process.
#[derive(Clone, Copy)]
pub(crate) struct Strings {
    /// Pointers to NUL-terminated strings, and a NULL.
    table: &'static [*const c_char],
}

impl Strings {
    /// Their number.
    pub(crate) const fn len(self) -> usize {
        self.table.len() - 1
    }

    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = &'static CStr> + Clone {
        // SAFETY: only `Start` makes such tables, of the kernel's own pointers, and nothing ever writes to the strings.
        self.table[..self.len()].iter().map(|string| unsafe { CStr::from_ptr(*string) })
    }

    /// Those from `index` on.
    pub(crate) fn from(self, index: usize) -> Self {
        Self { table: &self.table[index..] }
    }

    pub(crate) const fn none(self) -> Self {
        const NOTHING: &[*const c_char] = &[ptr::null()];
        Self { table: NOTHING }
    }
}

/// The strings that the kernel gives a new process.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
}

impl Start {
    /// # Safety
    /// `argv` points to the kernel's block: `argc` pointers, a NULL, the environment's pointers, a NULL.
    unsafe fn new(argc: usize, argv: *const *const c_char) -> Self {
        // SAFETY: the environment's pointers follow the arguments' NULL.
        let environment = unsafe { argv.add(argc + 1) };
        // SAFETY: the caller promises a NULL at the end.
        let envc = unsafe { count_until_null(environment) };
        // SAFETY: `argc` pointers and a NULL, in pages that live as long as the process.
        let arguments = unsafe { slice::from_raw_parts(argv, argc + 1) };
        // SAFETY: as many as were counted and a NULL, in the same pages.
        let environment = unsafe { slice::from_raw_parts(environment, envc + 1) };
        Self { arguments: Strings { table: arguments }, environment: Strings { table: environment } }
    }
}

/// Memory for a table that most launches need no other for: a mapping of its own would be made, filled and dropped again.
pub(crate) struct Room(Option<&'static mut [*const c_char]>);

impl Room {
    /// # Safety
    /// `usual` lies in a frame that is never left.
    unsafe fn new(usual: &mut [*const c_char]) -> Self {
        // SAFETY: the frame lives as long as the process, as the caller promises, and `usual` is not used again.
        Self(Some(unsafe { slice::from_raw_parts_mut(usual.as_mut_ptr(), usual.len()) }))
    }

    /// A table of `len` NULLs. The room is for one of them.
    pub(crate) fn table(&mut self, len: usize) -> Result<&'static mut [*const c_char], Errno> {
        match self.0.take().and_then(|usual| usual.get_mut(..len)) {
            Some(table) => Ok(table),
            None => allocate_table(len),
        }
    }
}

/// # Safety
/// `table` has a NULL.
unsafe fn count_until_null(table: *const *const c_char) -> usize {
    let mut count = 0;
    loop {
        // SAFETY: no entry before this one is NULL, so this one is still in the table.
        let entry = unsafe { table.add(count) };
        // SAFETY: as above.
        if unsafe { entry.read() }.is_null() {
            return count;
        }
        count += 1;
    }
}

/// A stream socket, closed on drop.
pub(crate) struct Socket(Descriptor);

impl Transport for Socket {
    type Descriptor = Descriptor;

    /// The number is not that of a standard stream, even if all three are closed. Otherwise a message of this program
    /// would go to the daemon.
    fn open() -> Result<Self, Errno> {
        // SAFETY: the call takes no pointer.
        let socket = unsafe { syscall!(Sysno::socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) }?;
        let socket = Descriptor(descriptor_number(socket));
        if socket.0 > STANDARD_ERROR { Ok(Self(socket)) } else { socket.above_standard_streams().map(Self) }
    }

    fn limit_sending(&self, milliseconds: u32) -> Result<(), Errno> {
        let limit = timespec(milliseconds);
        let limit = [limit[0], limit[1] / 1_000];
        // SAFETY: the kernel reads a `struct timeval`, two 64-bit numbers, and no more than its length.
        unsafe {
            syscall!(
                Sysno::setsockopt,
                self.0.0,
                SOL_SOCKET,
                SO_SNDTIMEO,
                &raw const limit,
                size_of_val(&limit)
            )
        }?;
        Ok(())
    }

    fn connect(&self, address: &SocketAddress) -> Result<(), Errno> {
        // SAFETY: the kernel reads the address, whose layout is its own, and no more than its length.
        let call =
            || unsafe { syscall!(Sysno::connect, self.0.0, ptr::from_ref(address), size_of_val(address)) };
        uninterrupted(call).map(drop)
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        // SAFETY: the kernel reads `bytes` and no more than their length.
        let call = || unsafe {
            syscall!(Sysno::sendto, self.0.0, bytes.as_ptr(), bytes.len(), MSG_NOSIGNAL, 0usize, 0usize)
        };
        uninterrupted(call)
    }

    /// A receiving call would wait too, but the kernel wakes it when the peer reads the request, and again when it writes.
    fn wait(&self, milliseconds: u32) -> Result<(), Errno> {
        let mut poll = Poll { descriptor: self.0.0, events: POLLIN, found: 0 };
        let mut limit = timespec(milliseconds);
        let (poll, limit) = (&raw mut poll, &raw mut limit);
        // SAFETY: the kernel writes to one `struct pollfd`, and the time that is left to a `struct timespec`, two
        // 64-bit numbers.
        let call = || unsafe { syscall!(Sysno::ppoll, poll, 1, limit, 0usize, 0usize) };
        if uninterrupted(call)? == 0 { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    fn receive(&self, room: &mut [u8]) -> Result<usize, Errno> {
        let (room, len) = (room.as_mut_ptr(), room.len());
        // SAFETY: the kernel writes into `room`, borrowed for this call, and no more than its length.
        let call = || unsafe { syscall!(Sysno::recvfrom, self.0.0, room, len, 0, 0usize, 0usize) };
        uninterrupted(call)
    }

    /// The control buffer has room for just one descriptor: the kernel closes further ones, and reports it.
    fn receive_with_descriptor(&self, room: &mut [u8]) -> Result<Received<Descriptor>, Errno> {
        let mut part = IoVec { base: room.as_mut_ptr(), len: room.len() };
        let mut control = Control::EMPTY;
        let mut message = Message {
            name: ptr::null_mut(),
            name_len: 0,
            parts: &raw mut part,
            parts_len: 1,
            control: &raw mut control,
            control_len: Control::WITH_ONE,
            flags: 0,
        };
        let message_pointer = &raw mut message;
        // SAFETY: a `struct msghdr` with one part, `room`, and one control buffer, all borrowed for this call; the
        // kernel writes no more than the lengths in it.
        let call = || unsafe { syscall!(Sysno::recvmsg, self.0.0, message_pointer, MSG_CMSG_CLOEXEC) };
        let len = uninterrupted(call)?;
        let truncated = message.flags & MSG_CTRUNC != 0;
        Ok(Received { len, descriptor: control.number(message.control_len).map(Descriptor), truncated })
    }

    fn size(descriptor: &Descriptor) -> Result<u64, Errno> {
        descriptor.size()
    }

    fn map(descriptor: &Descriptor, len: usize) -> Result<&'static [u8], Errno> {
        descriptor.map(len)
    }

    fn map_marked(descriptor: &Descriptor, len: usize) -> Result<(&'static [u8], &'static AtomicU8), Errno> {
        descriptor.map_marked(len)
    }

    fn allocate(len: usize) -> Result<&'static mut [u8], Errno> {
        allocate(len)
    }

    fn allocate_hidden(len: usize) -> Result<&'static mut [u8], Errno> {
        allocate_hidden(len)
    }

    fn now_ms() -> u64 {
        now_ms()
    }

    fn sleep_ms(milliseconds: u32) {
        sleep_ms(milliseconds);
    }
}

/// An open file, closed on drop.
pub(crate) struct Descriptor(i32);

impl Descriptor {
    /// The same open file under a number that no standard stream has.
    fn above_standard_streams(&self) -> Result<Self, Errno> {
        // SAFETY: the call takes no pointer.
        let moved = unsafe { syscall!(Sysno::fcntl, self.0, F_DUPFD_CLOEXEC, STANDARD_ERROR + 1) };
        match moved {
            Ok(number) => Ok(Self(descriptor_number(number))),
            // The limit of open files is below the first such number.
            Err(Errno::EINVAL) => Err(Errno::EMFILE),
            Err(error) => Err(error),
        }
    }

    /// The file's size in bytes.
    fn size(&self) -> Result<u64, Errno> {
        let mut status = Status { before: [0; 6], size: 0, after: [0; 11] };
        // SAFETY: the kernel writes a `struct stat`, which is no longer than `Status`.
        unsafe { syscall!(Sysno::fstat, self.0, &raw mut status) }?;
        Ok(u64::try_from(status.size).unwrap_or(0))
    }

    /// Maps the first `len` bytes, not 0, read-only.
    fn map(&self, len: usize) -> Result<&'static [u8], Errno> {
        let address = self.map_pages(len)?;
        // SAFETY: `len` bytes of a mapping that is never unmapped. Other holders of the file could write to it: that is
        // the daemon, which made it for this launch; every use of the bytes stays within `len` whatever they say.
        Ok(unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address), len) })
    }

    /// As [`Self::map`], and the byte after those, which the daemon may write to.
    fn map_marked(&self, len: usize) -> Result<(&'static [u8], &'static AtomicU8), Errno> {
        let address = self.map_pages(marked_len(len))?;
        // SAFETY: as in `map`.
        let bytes = unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address), len) };
        // SAFETY: one more byte of the same mapping, outside of `bytes`; this process never writes to it.
        let mark = unsafe { AtomicU8::from_ptr(ptr::with_exposed_provenance_mut(address + len)) };
        Ok((bytes, mark))
    }

    /// The address of a new mapping. Shared, because `memfd_secret(2)` knows no other way.
    fn map_pages(&self, len: usize) -> Result<usize, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        unsafe { syscall!(Sysno::mmap, SECRETS_HINT, len, PROT_READ, MAP_SHARED, self.0, 0usize) }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the call takes no pointer, and nobody else has this descriptor's number.
        let _ = unsafe { syscall!(Sysno::close, self.0) };
    }
}

/// New pages of zeros, of at least `len` bytes.
pub(crate) fn allocate(len: usize) -> Result<&'static mut [u8], Errno> {
    let address = allocate_pages(0, len, 0)?;
    // SAFETY: `len` bytes of zeros in a new mapping that is never unmapped and that nobody else has.
    Ok(unsafe { slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(address), len) })
}

/// Like [`allocate`], for secrets: in no core dump, and locked if this process's limit allows it.
fn allocate_hidden(len: usize) -> Result<&'static mut [u8], Errno> {
    let pages = allocate(len)?;
    // Best effort, both: without them the pages are as safe as the environment that the kernel copies them to.
    // SAFETY: advice about core dumps changes no memory.
    let _ = unsafe { syscall!(Sysno::madvise, pages.as_ptr(), len, MADV_DONTDUMP) };
    // Locking fills all pages at once. A size over the largest room is never launched, so only received bytes fill pages.
    if len <= LARGEST_ROOM {
        // SAFETY: locking changes no memory.
        let _ = unsafe { syscall!(Sysno::mlock, pages.as_ptr(), len) };
    }
    Ok(pages)
}

/// A table of `len` NULLs.
fn allocate_table(len: usize) -> Result<&'static mut [*const c_char], Errno> {
    let bytes = len.checked_mul(size_of::<*const c_char>()).ok_or(Errno::ENOMEM)?;
    // All of a usual table is written: one call makes its pages. That of an absurd count must not be made at once.
    let address = allocate_pages(TABLE_HINT, bytes, if bytes <= USUAL_TABLE { MAP_POPULATE } else { 0 })?;
    // SAFETY: as in `allocate`; pages are aligned for pointers, and zeros are NULLs.
    Ok(unsafe { slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(address), len) })
}

fn allocate_pages(hint: usize, len: usize, populate: usize) -> Result<usize, Errno> {
    let (protection, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | populate);
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    unsafe { syscall!(Sysno::mmap, hint, len.max(1), protection, flags, -1isize, 0usize) }
}

/// Becomes `file`; returns only an error. `environment` ends with a NULL.
pub(crate) fn execute(file: &CStr, arguments: Strings, environment: &[*const c_char]) -> Errno {
    execute_table(file, arguments.table, environment)
}

/// Becomes `shell`, which reads `script`; the script's own arguments are those after the first. Returns only an
/// error. `environment` ends with a NULL.
pub(crate) fn execute_script(
    shell: &CStr,
    script: &CStr,
    arguments: Strings,
    environment: &[*const c_char],
) -> Errno {
    let rest = arguments.table.get(1..).unwrap_or_default();
    let table = match allocate_table(2 + rest.len()) {
        Ok(table) => table,
        Err(error) => return error,
    };
    table[0] = shell.as_ptr();
    table[1] = script.as_ptr();
    table[2..].copy_from_slice(rest);
    execute_table(shell, table, environment)
}

fn execute_table(file: &CStr, arguments: &[*const c_char], environment: &[*const c_char]) -> Errno {
    let ends = |table: &[*const c_char]| table.last().is_some_and(|end| end.is_null());
    if !ends(arguments) || !ends(environment) {
        return Errno::EINVAL;
    }
    let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
    // SAFETY: both tables end with a NULL. The kernel checks each pointer in them itself and answers EFAULT.
    let result = unsafe { syscall!(Sysno::execve, file.as_ptr(), arguments, environment) };
    result.err().unwrap_or(Errno::EINVAL)
}

/// Whether the file starts with `magic`; false if it cannot be read.
pub(crate) fn begins_with<const N: usize>(file: &CStr, magic: &[u8; N]) -> bool {
    // SAFETY: the kernel reads a NUL-terminated string.
    let opened = unsafe { syscall!(Sysno::openat, AT_FDCWD, file.as_ptr(), O_CLOEXEC) };
    let Ok(number) = opened else { return false };
    let opened = Descriptor(descriptor_number(number));
    let mut start = [0; N];
    // SAFETY: the kernel writes into `start` and no more than its length.
    let read = unsafe { syscall!(Sysno::read, opened.0, start.as_mut_ptr(), N) };
    read == Ok(N) && start == *magic
}

/// Whether there is a file of this name.
pub(crate) fn is_present(file: &CStr) -> bool {
    // SAFETY: the kernel reads a NUL-terminated string.
    unsafe { syscall!(Sysno::faccessat, AT_FDCWD, file.as_ptr(), F_OK) }.is_ok()
}

/// The stack limit in bytes, `u64::MAX` for none.
pub(crate) fn stack_limit() -> u64 {
    let mut limits = [u64::MAX; 2];
    // SAFETY: the kernel writes a `struct rlimit64`, two 64-bit numbers.
    let _ = unsafe { syscall!(Sysno::prlimit64, 0usize, RLIMIT_STACK, 0usize, &raw mut limits) };
    limits[0]
}

/// Writes all of `bytes`.
pub(crate) fn write(descriptor: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads `bytes` and no more than their length.
        let call = || unsafe { syscall!(Sysno::write, descriptor, bytes.as_ptr(), bytes.len()) };
        bytes = &bytes[uninterrupted(call)?..];
    }
    Ok(())
}

/// The monotonic clock in milliseconds.
fn now_ms() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes a `struct timespec`, two 64-bit numbers.
    let _ = unsafe { syscall!(Sysno::clock_gettime, CLOCK_MONOTONIC, &raw mut time) };
    time[0] * 1_000 + time[1] / 1_000_000
}

/// Sleeps so long, or until a signal.
fn sleep_ms(milliseconds: u32) {
    let time = timespec(milliseconds);
    // SAFETY: the kernel reads a `struct timespec`, two 64-bit numbers.
    let _ = unsafe { syscall!(Sysno::clock_nanosleep, CLOCK_MONOTONIC, 0, &raw const time, 0usize) };
}

pub(crate) fn exit(status: u8) -> ! {
    loop {
        // SAFETY: the call takes no pointer; nothing runs after it.
        let _ = unsafe { syscall!(Sysno::exit_group, status) };
    }
}

/// Repeats a call that a signal interrupted: this program handles none, but calls with a time limit return even after
/// a stop and its continuation (signal(7)).
fn uninterrupted(call: impl Fn() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// A descriptor's number as the kernel's `int`.
fn descriptor_number(result: usize) -> i32 {
    i32::try_from(result).expect("descriptors are below the limit of open files, a 31-bit number")
}

/// The entry point, and what the compiler expects of a C library.
#[cfg(freestanding)]
mod freestanding {
    use core::arch::{asm, naked_asm};
    use core::ffi::{c_char, c_int};
    use core::ptr;

    use super::{Room, Start, USUAL_STRINGS, exit};

    /// The kernel starts the process here: the stack pointer is at `argc`, and no frame is above.
    #[unsafe(naked)]
    // SAFETY: no other code defines this symbol: the C library's start files are not linked.
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> ! {
        #[cfg(target_arch = "x86_64")]
        naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {enter}", "ud2", enter = sym enter);
        #[cfg(target_arch = "aarch64")]
        naked_asm!("mov x29, xzr", "mov x30, xzr", "mov x0, sp", "bl {enter}", "brk #1", enter = sym enter);
    }

    /// # Safety
    /// `block` points to `argc` as the kernel laid it out: elf(5), "auxiliary vector".
    unsafe extern "C" fn enter(block: *const usize) -> ! {
        // SAFETY: the block begins with `argc`.
        let argc = unsafe { block.read() };
        // SAFETY: the arguments' pointers follow it.
        let argv = unsafe { block.add(1) };
        // SAFETY: the block is the kernel's, as the caller promises.
        let start = unsafe { Start::new(argc, argv.cast()) };
        let mut usual = [ptr::null(); USUAL_STRINGS];
        // SAFETY: this function never returns.
        let room = unsafe { Room::new(&mut usual) };
        exit(crate::main(start, room))
    }

    /// Named by the core library's unwind tables; with `panic = "abort"` nothing calls it.
    // SAFETY: no other code defines this symbol: the standard library is not linked.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}

    /// string.h: copies `len` bytes between ranges that do not overlap.
    // SAFETY: no other code defines this symbol: the C library is not linked. So for the others below.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        // SAFETY: the caller promises `len` bytes at both; asm, because a loop would be compiled to a call of this.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!("2: cbz {n}, 3f", "ldrb {b:w}, [{s}], #1", "strb {b:w}, [{d}], #1", "sub {n}, {n}, #1", "b 2b", "3:",
                n = inout(reg) len => _, d = inout(reg) to => _, s = inout(reg) from => _, b = out(reg) _,
                options(nostack));
        }
        to
    }

    /// string.h: copies `len` bytes between ranges that may overlap.
    // SAFETY: as for memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        if to.addr().wrapping_sub(from.addr()) >= len {
            // SAFETY: forwards, each byte is read before it is overwritten.
            return unsafe { memcpy(to, from, len) };
        }
        for index in (0..len).rev() {
            // SAFETY: within the caller's `len` bytes.
            let source = unsafe { from.add(index) };
            // SAFETY: as above.
            let target = unsafe { to.add(index) };
            // SAFETY: as above.
            let byte = unsafe { source.read() };
            // SAFETY: as above; volatile, or the loop would be compiled to a call of this.
            unsafe { target.write_volatile(byte) };
        }
        to
    }

    /// string.h: sets `len` bytes.
    // SAFETY: as for memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
        // SAFETY: the caller promises `len` bytes; asm as in memcpy.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("eax") byte, options(nostack));
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!("2: cbz {n}, 3f", "strb {b:w}, [{d}], #1", "sub {n}, {n}, #1", "b 2b", "3:",
                n = inout(reg) len => _, d = inout(reg) to => _, b = in(reg) byte, options(nostack));
        }
        to
    }

    /// string.h: compares `len` bytes.
    // SAFETY: as for memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
        for index in 0..len {
            // SAFETY: within the caller's `len` bytes.
            let left = unsafe { left.wrapping_add(index).read() };
            // SAFETY: as above.
            let right = unsafe { right.wrapping_add(index).read() };
            if left != right {
                return c_int::from(left) - c_int::from(right);
            }
        }
        0
    }

    /// strings.h: whether `len` bytes differ.
    // SAFETY: as for memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
        // SAFETY: the caller's promise is the same.
        unsafe { memcmp(left, right, len) }
    }

    /// string.h: length of a string. Reads whole aligned words, which never cross a page's end.
    // SAFETY: as for memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(string: *const c_char) -> usize {
        const ONES: usize = usize::MAX / 255;
        let skipped = string.addr() % size_of::<usize>();
        let mut word: *const usize = string.wrapping_byte_sub(skipped).cast();
        // Bytes before the string do not count as its NUL.
        let mut ignored = (1usize << (8 * skipped)) - 1;
        loop {
            // SAFETY: an aligned word that begins in or before the string, on a page of it; all strings that this
            // program measures lie in pages that the kernel made.
            let bytes = unsafe { word.read() } | ignored;
            let nuls = bytes.wrapping_sub(ONES) & !bytes & (ONES << 7);
            if nuls != 0 {
                return word.addr() - string.addr() + nuls.trailing_zeros() as usize / 8;
            }
            ignored = 0;
            word = word.wrapping_add(1);
        }
    }
}

/// The same, if the C library starts the program. `main` instead of Rust's own, which would change the disposition
/// of SIGPIPE for the command too.
#[cfg(not(freestanding))]
mod hosted {
    use core::ffi::{c_char, c_int};
    use core::ptr;

    use super::{Room, Start, USUAL_STRINGS, exit};

    // SAFETY: this is the one `main`; Rust's own is left out by `no_main`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
        std::panic::set_hook(Box::new(|information| crate::panicked(information.location())));
        let argc = usize::try_from(argc).expect("the kernel counts from 0");
        // SAFETY: on Linux the C library passes the kernel's own block on.
        let start = unsafe { Start::new(argc, argv) };
        let mut usual = [ptr::null(); USUAL_STRINGS];
        // SAFETY: this function never returns: no destructor runs, and `exit` ends the process.
        let room = unsafe { Room::new(&mut usual) };
        exit(crate::main(start, room))
    }
}
