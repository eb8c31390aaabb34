//! One request to the kernel over netlink and its answer.
//!
//! Source: kernel include/uapi/linux/netlink.h.

use crate::lab::inside;
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
        socket, sockopt,
    },
    time::TimeVal,
};
use std::{io, os::fd::AsRawFd, path::Path};

pub(crate) const HEADER_LEN: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A dump that a change came into: it may lack something.
const INTERRUPTED: u16 = 16;

/// Sends messages to the kernel, as one datagram from inside a namespace, and returns what it answers, each with its
/// header, until so many of them are acknowledged, or their dumps at an end.
///
/// # Errors
/// The first refusal.
pub(crate) fn exchange(
    netns: &Path,
    protocol: SockProtocol,
    messages: Vec<u8>,
    ends: usize,
) -> io::Result<Vec<Vec<u8>>> {
    inside(netns, move || {
        let kernel = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(kernel.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&kernel, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
        loop {
            send(kernel.as_raw_fd(), &messages, MsgFlags::empty())?;
            if let Some(answers) = answers(&kernel, ends)? {
                return Ok(answers);
            }
        }
    })
}

/// `None` when the dump is to be asked for again.
fn answers(kernel: &impl AsRawFd, ends: usize) -> io::Result<Option<Vec<Vec<u8>>>> {
    let mut buffer = vec![0; 1 << 18];
    let (mut answers, mut seen, mut whole, mut refusal) = (Vec::new(), 0, true, None);
    while seen < ends {
        let len = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in split(&buffer[..len]) {
            let word = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
            whole &= word(6) & INTERRUPTED == 0;
            match word(4) {
                ERROR | DONE => {
                    let code = message
                        .get(HEADER_LEN..HEADER_LEN + 4)
                        .map_or(0, |code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
                    if code != 0 && refusal.is_none() {
                        refusal = Some(io::Error::from_raw_os_error(-code));
                    }
                    seen += 1;
                }
                _ => answers.push(message.to_vec()),
            }
        }
        // Whatever else was sent with what is refused, nothing is waited for.
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
    }
    Ok(whole.then_some(answers))
}

/// Splits a datagram into its messages.
pub(crate) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let message = bytes.get(..len).filter(|message| message.len() >= HEADER_LEN)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
