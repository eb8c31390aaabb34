//! What signals do to this program: a thread takes them all, and does what steps have said or, without one, what the
//! kernel would have done.

use crate::{number, pair};
use rustix::process::{Signal, getpid, kill_process};
use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

#[derive(Clone, Copy)]
enum Action {
    Exit(u8),
    Nothing,
}

static ACTIONS: Mutex<BTreeMap<i32, Action>> = Mutex::new(BTreeMap::new());

fn actions() -> MutexGuard<'static, BTreeMap<i32, Action>> {
    ACTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells whether a step needs [`listen`].
pub(crate) fn concern(step: &str) -> bool {
    step.starts_with("on:") || step.starts_with("ignore:")
}

/// Has signals be taken from here on. Before any other thread.
pub(crate) fn listen() {
    sys::signal::block_all().expect("Linux never refuses this");
    drop(thread::spawn(|| {
        loop {
            // Something else may wake it.
            let Ok(signal) = sys::signal::wait_any() else { continue };
            let action = actions().get(&signal).copied();
            match action {
                Some(Action::Exit(code)) => std::process::exit(code.into()),
                Some(Action::Nothing) => {}
                None => default(signal),
            }
        }
    }));
}

/// What the kernel does by itself: nothing to the first process of a container, and nothing for some signals.
fn default(signal: i32) {
    let Some(signal) = Signal::from_named_raw(signal) else { return };
    let harmless = [Signal::CHILD, Signal::CONT, Signal::URG, Signal::WINCH];
    if std::process::id() == 1 || harmless.contains(&signal) {
        return;
    }
    // Any other signal that has come meanwhile may be the one it ends by.
    sys::signal::reset_all();
    kill_process(getpid(), signal).expect("one may signal oneself");
    sys::signal::block_all().expect("Linux never refuses this");
}

pub(crate) fn on(operand: &str) -> io::Result<()> {
    let (name, code) = pair(operand)?;
    actions().insert(named(name)?.as_raw(), Action::Exit(number(code)?));
    Ok(())
}

pub(crate) fn ignore(name: &str) -> io::Result<()> {
    actions().insert(named(name)?.as_raw(), Action::Nothing);
    Ok(())
}

pub(crate) fn die(name: &str) -> io::Result<()> {
    Ok(kill_process(getpid(), named(name)?)?)
}

fn named(name: &str) -> io::Result<Signal> {
    match name {
        "HUP" => Ok(Signal::HUP),
        "INT" => Ok(Signal::INT),
        "KILL" => Ok(Signal::KILL),
        "TERM" => Ok(Signal::TERM),
        "USR1" => Ok(Signal::USR1),
        other => Err(io::Error::other(format!("no such signal: {other}"))),
    }
}
