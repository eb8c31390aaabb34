//! What is drawn: the faults of a run follow from its seed and nothing else.

use super::{
    fault::{ALL, Kind},
    hosts::{HOSTS, MANAGERS},
};

/// Numbers that follow from a seed. Source: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number
/// Generators", 2014 (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 on, below `end`, which is more than 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn host(&mut self, among: u8) -> u8 {
        u8::try_from(self.below(among.into())).unwrap_or_default() + 1
    }
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Host(u8),
    /// Whoever leads when it begins.
    Leader,
}

/// A fault that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) target: Target,
    /// How long it lasts. *Unit:* seconds, 1 to 15.
    pub(super) seconds: u64,
}

/// Returns what happens in one step, of these kinds: one fault, sometimes two at once.
pub(super) fn step(draw: &mut Draw, kinds: &[Kind]) -> Vec<Planned> {
    let first = one(draw, kinds);
    let others: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.may_be_one_of_two()).collect();
    if draw.below(4) != 0 || !first.kind.may_be_one_of_two() || others.is_empty() {
        return vec![first];
    }
    vec![first, one(draw, &others)]
}

fn one(draw: &mut Draw, kinds: &[Kind]) -> Planned {
    let at = usize::try_from(draw.below(kinds.len() as u64)).unwrap_or_default();
    let kind = kinds.get(at).copied().unwrap_or(ALL[0]);
    let among = if kind.is_of_managers() { MANAGERS } else { HOSTS };
    let leader = draw.below(3) == 0 || kind == Kind::LeaderIsolated;
    let host = draw.host(among);
    let target = if leader { Target::Leader } else { Target::Host(host) };
    Planned { kind, target, seconds: 1 + draw.below(15) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64) -> Vec<Vec<Planned>> {
        let mut draw = Draw::new(seed);
        (0..400).map(|_| step(&mut draw, &ALL)).collect()
    }

    #[test]
    fn a_seed_says_all_of_a_run_and_every_kind_comes() {
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let steps = run(1);
        let drawn: Vec<Planned> = steps.iter().flatten().copied().collect();
        for kind in ALL {
            assert!(drawn.iter().any(|planned| planned.kind == kind), "{kind:?} never comes");
        }
        for planned in &drawn {
            assert!((1..=15).contains(&planned.seconds), "{planned:?}");
            let highest = if planned.kind.is_of_managers() { MANAGERS } else { HOSTS };
            if let Target::Host(n) = planned.target {
                assert!((1..=highest).contains(&n), "{planned:?}");
            }
        }
        let pairs = steps.iter().filter(|step| step.len() == 2).count();
        assert!((20..200).contains(&pairs), "{pairs} of 400 are two at once");
        assert!(steps.iter().all(|step| step.len() == 1 || step.iter().all(|p| p.kind.may_be_one_of_two())));
    }
}
