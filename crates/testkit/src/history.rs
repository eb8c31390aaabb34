//! Judges what clients of a store saw: is there an order of all operations that explains it?
//!
//! A *history* is what clients did to one register whose writes name the version they replace: when each operation
//! began, when it was answered, and what the answer was. It is *linearizable* when every operation can be given one
//! moment between its beginning and its answer so that one client doing them all in that order would have seen the
//! same. An operation that was never answered may have been done at any moment after it began, or never.
//!
//! The search is Wing's and Gong's with Lowe's memory of what was tried. Sources: J. M. Wing, C. Gong, "Testing and
//! Verifying Concurrent Objects", 1993; G. Lowe, "Testing for Linearizability", 2017.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

/// What a client asked of the register.
///
/// Every write has a value of its own, so that what was read tells which write it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Read,
    /// Puts `value` in place of what `version` names.
    Replace {
        version: u64,
        value: u64,
    },
}

/// What it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The register held this.
    Holds { version: u64, value: u64 },
    /// It was replaced; the register is at this version now.
    Replaced { version: u64 },
    /// Another version is there: nothing was done.
    Refused,
    /// It was never answered, or nobody knows what became of it.
    Unknown,
}

/// One operation of one client. Times are of one clock for all clients, in any unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    pub client: usize,
    pub began: u64,
    /// Later than `began`; what is [`Told::Unknown`] never ended, whatever stands here.
    pub ended: u64,
    pub asked: Asked,
    pub told: Told,
}

/// No order explains a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexplained {
    /// The operations that the longest order found has, in that order.
    pub longest: Vec<Operation>,
    /// Of the others, those that were answered and of which one would have had to be next.
    pub stuck_at: Vec<Operation>,
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of the operations explains what the clients saw; the longest ends with")?;
        for operation in self.longest.iter().rev().take(12).rev() {
            writeln!(f, "  {operation}")?;
        }
        writeln!(f, "and none of these can be next:")?;
        self.stuck_at.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, began, ended, asked, told } = self;
        write!(f, "[{began}, {ended}] client {client}: {asked:?} -> {told:?}")
    }
}

/// Version and value that the register holds.
type State = (u64, u64);

/// Made by a write that was never answered and never read: nobody can name it.
const UNSEEN: u64 = u64::MAX;

/// Returns an order that explains a history of a register that held `first` (version, value) at the beginning.
///
/// # Errors
/// There is none.
pub fn linearize(first: (u64, u64), history: &[Operation]) -> Result<Vec<Operation>, Unexplained> {
    let is_silent = |o: &Operation| o.asked == Asked::Read && o.told == Told::Unknown;
    let mut operations: Vec<Operation> = history.iter().filter(|o| !is_silent(o)).copied().collect();
    operations.sort_by_key(|o| (o.began, end(o)));
    let seen = versions_seen(&operations);
    let mut tried: HashSet<(Vec<u64>, State)> = HashSet::new();
    let mut done = vec![0_u64; operations.len().div_ceil(64)];
    let (mut state, mut order) = (first, Vec::new());
    // What was chosen at each depth, and the state before.
    let mut path: Vec<(usize, State)> = Vec::new();
    let mut from = 0;
    let mut longest = (Vec::new(), candidates(&operations, &done).collect::<Vec<_>>());
    loop {
        let is_explained =
            (0..operations.len()).all(|n| is_set(&done, n) || operations[n].told == Told::Unknown);
        if is_explained {
            return Ok(order);
        }
        let next = candidates(&operations, &done).filter(|n| *n >= from).find_map(|n| {
            after(state, &operations[n], &seen).map(|next| (n, next)).filter(|(n, next)| {
                let mut with = done.clone();
                with[n / 64] |= 1 << (n % 64);
                tried.insert((with, *next))
            })
        });
        match next {
            Some((n, next)) => {
                path.push((n, state));
                done[n / 64] |= 1 << (n % 64);
                order.push(operations[n]);
                (state, from) = (next, 0);
                if order.len() > longest.0.len() {
                    longest = (order.clone(), candidates(&operations, &done).collect());
                }
            }
            None => {
                let Some((n, before)) = path.pop() else {
                    let stuck_at = longest.1.into_iter().map(|n| operations[n]);
                    let stuck_at = stuck_at.filter(|o| o.told != Told::Unknown).collect();
                    return Err(Unexplained { longest: longest.0, stuck_at });
                };
                done[n / 64] &= !(1 << (n % 64));
                order.pop();
                (state, from) = (before, n + 1);
            }
        }
    }
}

/// Returns the version of each value that was read: what a write that was not answered made.
fn versions_seen(operations: &[Operation]) -> HashMap<u64, u64> {
    let seen = operations.iter().filter_map(|o| match o.told {
        Told::Holds { version, value } => Some((value, version)),
        Told::Replaced { .. } | Told::Refused | Told::Unknown => None,
    });
    seen.collect()
}

fn end(operation: &Operation) -> u64 {
    if operation.told == Told::Unknown { u64::MAX } else { operation.ended }
}

fn is_set(done: &[u64], n: usize) -> bool {
    done[n / 64] & (1 << (n % 64)) != 0
}

/// Returns what may be next: what began before the first answer among all that is not done.
fn candidates<'a>(operations: &'a [Operation], done: &'a [u64]) -> impl Iterator<Item = usize> + 'a {
    let left = (0..operations.len()).filter(|n| !is_set(done, *n));
    let first_answer = left.clone().map(|n| end(&operations[n])).min().unwrap_or(u64::MAX);
    left.take_while(move |n| operations[*n].began <= first_answer)
}

/// Returns what the register holds after an operation, if it would have answered that.
fn after((version, value): State, operation: &Operation, seen: &HashMap<u64, u64>) -> Option<State> {
    match (operation.asked, operation.told) {
        (Asked::Read, Told::Holds { version: seen, value: held }) => {
            ((seen, held) == (version, value)).then_some((version, value))
        }
        (Asked::Replace { version: named, value: new }, Told::Replaced { version: made }) => {
            (named == version && made > version).then_some((made, new))
        }
        (Asked::Replace { version: named, .. }, Told::Refused) => {
            (named != version).then_some((version, value))
        }
        (Asked::Replace { version: named, value: new }, Told::Unknown) => {
            let made = seen.get(&new).copied().unwrap_or(UNSEEN);
            (named == version && made > version).then_some((made, new))
        }
        (Asked::Read, Told::Replaced { .. } | Told::Refused | Told::Unknown)
        | (Asked::Replace { .. }, Told::Holds { .. }) => None, // no answer to what was asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Asked::{Read, Replace};
    use Told::{Holds, Refused, Replaced, Unknown};

    fn op(client: usize, began: u64, ended: u64, asked: Asked, told: Told) -> Operation {
        Operation { client, began, ended, asked, told }
    }

    fn put(version: u64, value: u64) -> Asked {
        Replace { version, value }
    }

    fn saw(version: u64, value: u64) -> Told {
        Holds { version, value }
    }

    fn check(history: &[Operation], explained: bool) {
        let outcome = linearize((1, 0), history);
        assert_eq!(outcome.is_ok(), explained, "{history:#?}: {outcome:#?}");
    }

    #[test]
    fn histories_that_an_order_explains_are_taken() {
        check(&[], true);
        check(&[op(0, 0, 1, Read, saw(1, 0)), op(0, 2, 3, put(1, 7), Replaced { version: 5 })], true);
        // While a write is under way, one may see it and another not yet.
        let write = op(0, 0, 10, put(1, 7), Replaced { version: 5 });
        check(&[write, op(1, 1, 2, Read, saw(1, 0)), op(2, 3, 4, Read, saw(5, 7))], true);
        check(&[write, op(1, 1, 9, put(1, 8), Refused)], true);
        // Never answered: done late, or never.
        let lost = op(0, 0, 1, put(1, 7), Unknown);
        check(&[lost, op(1, 5, 6, Read, saw(1, 0)), op(1, 7, 8, Read, saw(4, 7))], true);
        check(&[lost, op(1, 5, 6, Read, saw(1, 0)), op(1, 7, 8, put(1, 9), Replaced { version: 6 })], true);
        check(&[lost, op(1, 5, 6, put(1, 9), Refused)], true);
        check(&[lost, op(1, 5, 6, Read, saw(4, 7)), op(1, 7, 8, put(4, 9), Replaced { version: 6 })], true);
        check(&[op(0, 0, 1, Read, Unknown)], true);
    }

    #[test]
    fn histories_that_no_order_explains_are_not() {
        let write = op(0, 0, 1, put(1, 7), Replaced { version: 5 });
        check(&[write, op(1, 2, 3, Read, saw(1, 0))], false); // an old value after the answer
        check(&[write, op(1, 2, 3, put(1, 8), Replaced { version: 6 })], false); // two winners on one version
        check(&[write, op(1, 0, 9, put(1, 8), Replaced { version: 6 })], false); // even at the same time
        check(&[op(1, 2, 3, put(1, 8), Refused)], false); // refused although it was right
        check(&[op(0, 0, 1, Read, saw(5, 7))], false); // out of nowhere
        check(&[write, op(1, 2, 3, Read, saw(5, 8))], false); // another value under its version
        let long = op(0, 0, 20, put(1, 7), Replaced { version: 5 });
        let (new, old) = (op(1, 1, 2, Read, saw(5, 7)), op(2, 3, 4, Read, saw(1, 0)));
        check(&[long, new, old], false); // what one has seen, the next one sees
        let lost = op(0, 0, 1, put(1, 7), Unknown);
        check(&[lost, op(1, 2, 3, Read, saw(4, 7)), op(1, 4, 5, Read, saw(1, 0))], false); // undone again
        check(&[op(1, 2, 3, Read, saw(4, 7)), op(0, 5, 6, put(1, 7), Unknown)], false); // seen before it was asked
        check(&[write, op(0, 2, 3, put(5, 8), Replaced { version: 4 })], false); // a version that goes back
        check(&[op(0, 0, 1, Read, Refused)], false); // no answer to that
    }

    /// A register as it should be, with clients that ask at random; moments are drawn, not waited for.
    fn drawn(seed: u64) -> Vec<Operation> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        // (began, done, ended, client), done in the order of `done`.
        let mut moments = Vec::new();
        for client in 0..5 {
            let mut now = draw(5);
            for _ in 0..40 {
                let (done, ended) = (now + 1 + draw(8), now + 10 + draw(8));
                moments.push((done, now, ended, client));
                now = ended + 1 + draw(4);
            }
        }
        moments.sort_unstable();
        let (mut version, mut value, mut known) = (1, 0, [1; 5]);
        let mut history = Vec::new();
        for (n, (_, began, ended, client)) in (1_u64..).zip(moments) {
            let (asked, mut told) = if draw(2) == 0 {
                (Read, saw(version, value))
            } else if known[client] == version {
                (version, value) = (version + 1 + draw(3), n);
                (put(known[client], n), Replaced { version })
            } else {
                (put(known[client], n), Refused)
            };
            if draw(12) == 0 {
                told = Unknown;
            } else if told != Refused {
                known[client] = version;
            }
            history.push(op(client, began, ended, asked, told));
        }
        history
    }

    #[test]
    fn a_register_as_it_should_be_is_believed_and_each_lie_of_it_is_found() {
        let mut lies = 0;
        for seed in 1..40 {
            let history = drawn(seed);
            check(&history, true);
            let write = |o: &Operation| match (o.asked, o.told) {
                (Replace { version, .. }, Replaced { version: made }) => Some((version, made)),
                _ => None,
            };
            // A read that began when a write had been answered says what was there before that write.
            for (n, read) in history.iter().enumerate().filter(|(_, o)| matches!(o.told, Holds { .. })) {
                let answered = history.iter().filter(|o| o.ended < read.began);
                let Some((replaced, _)) = answered.filter_map(write).max_by_key(|(_, made)| *made) else {
                    continue;
                };
                let mut stale = history.clone();
                stale[n].told = saw(replaced, 1_000_000);
                for o in &history {
                    if let Holds { version, value } = o.told
                        && version == replaced
                    {
                        stale[n].told = saw(version, value);
                    }
                }
                check(&stale, false);
                lies += 1;
                break;
            }
        }
        assert!(lies > 20, "only {lies}");
    }
}
