//! `ulimits`, of a service and of a build.

use crate::{Error, read::Item};
use model::Ulimit;

pub(crate) fn ulimits(item: &Item<'_>) -> Result<Vec<Ulimit>, Error> {
    let mut limits = Vec::new();
    for (name, limit, _) in item.entries()? {
        let (soft, hard) = if limit.is_map() {
            limit.only(&["soft", "hard"], &[])?;
            let of = |key: &str| {
                limit
                    .get(key)
                    .ok_or_else(|| limit.invalid(format!("a limit needs {key:?}")))?
                    .integer::<i64>()
            };
            (of("soft")?, of("hard")?)
        } else {
            let both = limit.integer::<i64>()?;
            (both, both)
        };
        limits.push(Ulimit { name: name.to_owned(), soft, hard });
    }
    limits.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(limits)
}
