//! Which of a node's counted and named resources a task gets.

use model::{
    GenericRequests, GenericResources, Supply, Want,
    resource::{rank, serves},
};
use std::collections::BTreeSet;

/// Returns what a task gets of what a node `has` and others have not `taken`; `None` if that does not suffice. Each
/// request is served from one kind, the first by rank that can.
pub(crate) fn choose(
    has: &GenericResources,
    taken: &GenericResources,
    wants: &GenericRequests,
) -> Option<GenericResources> {
    let mut given = GenericResources::new();
    // Who wants certain ones comes before who takes any.
    let mut wants: Vec<_> = wants.iter().collect();
    wants.sort_by_key(|(_, want)| match want {
        Want::These(_) => 0,
        Want::TheseAndMore { .. } => 1,
        Want::Count(_) | Want::All => 2,
    });
    for (wanted, want) in wants {
        let mut kinds: Vec<_> = has.iter().filter(|(kind, _)| serves(kind, wanted)).collect();
        kinds.sort_by_key(|(kind, _)| rank(kind));
        let (kind, part) = kinds.into_iter().find_map(|(kind, whole)| {
            let free = less(&less(whole, taken.get(kind)), given.get(kind));
            Some((kind, part(whole, &free, want)?))
        })?;
        match given.get_mut(kind) {
            Some(more) => more.add(&part),
            None => {
                given.insert(kind.clone(), part);
            }
        }
    }
    Some(given)
}

/// Adds what a task was given.
pub(crate) fn take(taken: &mut GenericResources, task: &GenericResources) {
    for (kind, supply) in task {
        match taken.get_mut(kind) {
            Some(more) => more.add(supply),
            None => {
                taken.insert(kind.clone(), supply.clone());
            }
        }
    }
}

/// Returns true if a node that has what is taken of it has this as well. As much work as there is in `more`.
pub(crate) fn holds_more(has: &GenericResources, taken: &GenericResources, more: &GenericResources) -> bool {
    more.iter().all(|(kind, part)| match (has.get(kind), taken.get(kind), part) {
        (Some(Supply::Named(all)), None | Some(Supply::Named(_)), Supply::Named(names)) => {
            names.is_subset(all)
        }
        // Of counts a node has few; what has changed its nature is rare.
        (whole, used, part) => {
            let mut with_it = used.unwrap_or(part).clone();
            if used.is_some() {
                with_it.add(part);
            }
            with_it.is_empty() || whole.is_some_and(|whole| with_it.is_within(whole))
        }
    })
}

fn less(whole: &Supply, used: Option<&Supply>) -> Supply {
    match (whole, used) {
        (Supply::Count(all), Some(Supply::Count(used))) => Supply::Count(all.saturating_sub(*used)),
        (Supply::Named(all), Some(Supply::Named(used))) => {
            Supply::Named(all.difference(used).cloned().collect())
        }
        _ => whole.clone(),
    }
}

fn part(whole: &Supply, free: &Supply, want: &Want) -> Option<Supply> {
    match (want, free) {
        (Want::Count(n), Supply::Count(free)) => (n <= free).then_some(Supply::Count(*n)),
        (Want::Count(n), Supply::Named(free)) => {
            let n = usize::try_from(*n).ok().filter(|n| *n <= free.len())?;
            Some(Supply::Named(free.iter().take(n).cloned().collect::<BTreeSet<_>>()))
        }
        (Want::All, free) => (free == whole && !free.is_empty()).then(|| free.clone()),
        (Want::These(names), Supply::Named(free)) => {
            names.is_subset(free).then(|| Supply::Named(names.clone()))
        }
        (Want::TheseAndMore { names, more }, Supply::Named(free)) => {
            let more = usize::try_from(*more).ok()?;
            let others: Vec<_> = free.difference(names).take(more).collect();
            let all = || Supply::Named(names.iter().chain(others.iter().copied()).cloned().collect());
            (names.is_subset(free) && others.len() == more).then(all)
        }
        (Want::These(_) | Want::TheseAndMore { .. }, Supply::Count(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &str) -> Supply {
        Supply::Named(names.split_whitespace().map(str::to_owned).collect())
    }

    fn these(names: &str) -> Want {
        Want::These(names.split_whitespace().map(str::to_owned).collect())
    }

    fn these_and(names: &str, more: u64) -> Want {
        Want::TheseAndMore { names: names.split_whitespace().map(str::to_owned).collect(), more }
    }

    fn supplies(of: &[(&str, Supply)]) -> GenericResources {
        of.iter().map(|(kind, supply)| ((*kind).to_owned(), supply.clone())).collect()
    }

    fn choice(taken: &[(&str, Supply)], wants: &[(&str, Want)]) -> Option<GenericResources> {
        let has = supplies(&[
            ("amd.com/gpu", named("0")),
            ("nvidia.com/gpu", named("0 1 2")),
            ("seat", Supply::Count(3)),
        ]);
        let wants = wants.iter().map(|(kind, want)| ((*kind).to_owned(), want.clone())).collect();
        choose(&has, &supplies(taken), &wants)
    }

    #[test]
    fn a_task_gets_what_is_free() {
        let got = |taken: &[_], wants: &[_], expected: &[_]| {
            assert_eq!(choice(taken, wants), Some(supplies(expected)), "{wants:?}");
        };
        got(&[], &[("seat", Want::Count(3))], &[("seat", Supply::Count(3))]);
        got(&[("seat", Supply::Count(2))], &[("seat", Want::Count(1))], &[("seat", Supply::Count(1))]);
        let one_used = [("nvidia.com/gpu", named("0"))];
        got(&one_used, &[("nvidia.com/gpu", Want::Count(2))], &[("nvidia.com/gpu", named("1 2"))]);
        got(&one_used, &[("nvidia.com/gpu", these("2"))], &[("nvidia.com/gpu", named("2"))]);
        got(&[], &[("nvidia.com/gpu", Want::All)], &[("nvidia.com/gpu", named("0 1 2"))]);
        // Any vendor's, but of one vendor.
        got(&[], &[("gpu", Want::Count(2))], &[("nvidia.com/gpu", named("0 1"))]);
        let two_used = [("nvidia.com/gpu", named("0 1"))];
        got(&two_used, &[("gpu", Want::Count(1))], &[("nvidia.com/gpu", named("2"))]);
        let all_used = [("nvidia.com/gpu", named("0 1 2"))];
        got(&all_used, &[("gpu", Want::Count(1))], &[("amd.com/gpu", named("0"))]);
        let both = [("gpu", Want::Count(2)), ("nvidia.com/gpu", these("0"))];
        got(&[], &both, &[("nvidia.com/gpu", named("0 1 2"))]);
        let one_of_them_this = [("gpu", these_and("2", 1))];
        got(&[], &one_of_them_this, &[("nvidia.com/gpu", named("0 2"))]);
        got(&one_used, &one_of_them_this, &[("nvidia.com/gpu", named("1 2"))]);
        // The other ones are not those that somebody asks for by name.
        let certain = [("gpu", these_and("2", 1)), ("nvidia.com/gpu", these("0"))];
        got(&[], &certain, &[("nvidia.com/gpu", named("0 1 2"))]);
    }

    #[test]
    fn what_a_node_does_not_have_is_not_given() {
        let none = |taken: &[_], wants: &[_]| assert_eq!(choice(taken, wants), None, "{wants:?}");
        none(&[("seat", Supply::Count(2))], &[("seat", Want::Count(2))]);
        none(&[], &[("seat", these("0"))]);
        none(&[], &[("licence", Want::Count(1))]);
        none(&[], &[("gpu", Want::Count(4))]);
        none(&[("nvidia.com/gpu", named("1"))], &[("nvidia.com/gpu", Want::All)]);
        none(&[("nvidia.com/gpu", named("1"))], &[("nvidia.com/gpu", these("1"))]);
        none(&[("nvidia.com/gpu", named("1"))], &[("gpu", these_and("1", 1))]);
        none(&[], &[("gpu", these_and("1", 3))]);
        none(&[], &[("seat", these_and("1", 1))]);
    }

    #[test]
    fn what_a_node_has_beside_what_is_taken_is_found_kind_by_kind() {
        let has = supplies(&[("gpu", named("0 1")), ("seat", Supply::Count(3))]);
        let holds = |taken: &[(&str, Supply)], more: &[(&str, Supply)]| {
            holds_more(&has, &supplies(taken), &supplies(more))
        };
        assert!(holds(&[], &[("gpu", named("0 1")), ("seat", Supply::Count(3))]));
        assert!(holds(&[("gpu", named("0"))], &[("gpu", named("1"))]));
        assert!(holds(&[("seat", Supply::Count(2))], &[("seat", Supply::Count(1))]));
        assert!(!holds(&[("seat", Supply::Count(2))], &[("seat", Supply::Count(2))]));
        assert!(!holds(&[], &[("gpu", named("2"))]));
        assert!(!holds(&[], &[("gpu", Supply::Count(1))]), "what is named is not counted");
        assert!(!holds(&[], &[("fpga", named("0"))]) && holds(&[], &[("fpga", named(""))]));
    }
}
