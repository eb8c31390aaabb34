//! Inputs made of seeds, the same ones for the same numbers: no clock, no state between two of them.

use fastrand::Rng;
use std::{collections::BTreeSet, ops::Range};

/// Longer inputs are cut. *Unit:* bytes. More than the longest seed.
const LONGEST: usize = 16 << 10;

/// What readers stumble over, besides the words of the seeds.
const WORDS: [&[u8]; 24] = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"-1",
    b"0",
    b"1e999",
    b"65536",
    b"18446744073709551616",
    b"..",
    b"../",
    b"/",
    b"\\",
    b"\"",
    b"'",
    b"${",
    b"$(",
    b"[",
    b"{",
    b"<<",
    "\u{feff}".as_bytes(),
    "\u{e9}\u{1f433}".as_bytes(),
];

pub(crate) struct Inputs {
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Inputs {
    /// Takes the seeds of a target apart: each word of one may turn up in another.
    pub(crate) fn new(seeds: Vec<Vec<u8>>) -> Self {
        let of_seeds = seeds.iter().flat_map(|seed| seed.split(|byte| !byte.is_ascii_alphanumeric()));
        let words: BTreeSet<&[u8]> = WORDS.into_iter().chain(of_seeds).collect();
        let words = words.into_iter().map(<[u8]>::to_vec).collect();
        Self { seeds, words }
    }

    /// Makes the input with this number: mostly a seed with up to eight changes, now and then bytes of any kind.
    pub(crate) fn make(&self, number: u64) -> Vec<u8> {
        let rng = &mut Rng::with_seed(number);
        if rng.u8(..16) == 0 {
            let length = rng.usize(..256);
            return std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        }
        let mut input = rng.choice(&self.seeds).cloned().unwrap_or_default();
        for _ in 0..rng.u8(1..=8) {
            self.change(rng, &mut input);
            input.truncate(LONGEST);
        }
        input
    }

    fn change(&self, rng: &mut Rng, input: &mut Vec<u8>) {
        let part = part(rng, input.len());
        match rng.u8(..9) {
            0 => input.iter_mut().skip(part.start).take(1).for_each(|byte| *byte ^= 1 << rng.u8(..8)),
            1 => input.iter_mut().skip(part.start).take(1).for_each(|byte| *byte = rng.u8(..)),
            2 => drop(input.drain(part)),
            3 => {
                let copy = input[part].to_vec();
                insert(input, rng.usize(..=input.len()), &copy);
            }
            // Readers that call themselves run out of stack.
            4 => {
                let copies = input[part.clone()].repeat(rng.usize(2..400));
                insert(input, part.start, &copies);
            }
            5 => insert(input, part.start, self.word(rng)),
            6 => drop(input.splice(part, self.word(rng).iter().copied())),
            7 => {
                let other = rng.choice(&self.seeds).map_or(&[][..], Vec::as_slice);
                input.truncate(part.start);
                input.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
            // One letter becomes the same other one everywhere: a field is renamed, a separator changes.
            _ => {
                if let (Some(&old), new) = (input.get(part.start), rng.u8(..128)) {
                    input.iter_mut().filter(|byte| **byte == old).for_each(|byte| *byte = new);
                }
            }
        }
    }

    fn word(&self, rng: &mut Rng) -> &[u8] {
        rng.choice(&self.words).map_or(&[], Vec::as_slice)
    }
}

/// Chooses a part of up to 64 bytes.
fn part(rng: &mut Rng, length: usize) -> Range<usize> {
    let start = rng.usize(..=length);
    start..(start + rng.usize(..=64)).min(length)
}

fn insert(input: &mut Vec<u8>, at: usize, what: &[u8]) {
    input.splice(at..at, what.iter().copied());
}
