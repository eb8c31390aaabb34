//! Docker's `filters` parameter: `{"label": {"a=b": true}}`, or the older `{"label": ["a=b"]}`.

use super::ApiError;
use model::Labels;
use std::collections::BTreeMap;

/// *Limit* of the values of all filters of a request.
const VALUES_MAX: usize = 1000;

/// Filter name -> accepted values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads either form.
    ///
    /// # Errors
    /// 400 when it is neither.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            Map(BTreeMap<String, bool>),
            List(Vec<String>),
        }
        let read: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|e| ApiError::bad_request(format!("invalid filters {text:?}: {e}")))?;
        let filters = Self(
            read.into_iter()
                .map(|(key, values)| match values {
                    Values::Map(map) => {
                        (key, map.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect())
                    }
                    Values::List(list) => (key, list),
                })
                .collect(),
        );
        // Each is held against each object.
        if filters.0.values().map(Vec::len).sum::<usize>() > VALUES_MAX {
            return Err(ApiError::bad_request(format!("invalid filters: more than {VALUES_MAX} values")));
        }
        Ok(filters)
    }

    /// Refuses filters that would be silently without effect.
    ///
    /// # Errors
    /// 400 in Docker's words.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            Some(key) => Err(ApiError::bad_request(format!("invalid filter '{key}'"))),
            None => Ok(self),
        }
    }

    pub(crate) fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns true if there is no such filter, or one of its values satisfies `accepts`.
    pub(crate) fn any(&self, key: &str, accepts: impl Fn(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|v| accepts(v))
    }

    pub(crate) fn prefix(&self, key: &str, of: &str) -> bool {
        self.any(key, |wanted| of.starts_with(wanted))
    }

    /// Returns true if all `key` filters (`name` or `name=value`) hold of the labels.
    pub(crate) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.get(key).iter().all(|filter| match filter.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(filter),
        })
    }

    /// Returns the same filters for the engine.
    pub(crate) fn engine(self) -> engine::Filters {
        engine::Filters(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":{"a=b":true,"c":false}}"#).unwrap();
        assert_eq!(new, Filters::parse(r#"{"label":["a=b"]}"#).unwrap());
        assert!(Filters::parse("[1]").is_err());
        let many = |count: usize| serde_json::json!({ "name": vec!["x"; count] }).to_string();
        assert!(Filters::parse(&many(VALUES_MAX)).is_ok());
        assert!(Filters::parse(&many(VALUES_MAX + 1)).unwrap_err().message.contains("more than 1000"));
    }

    #[test]
    fn labels_must_all_hold_and_other_values_any() {
        let filters = Filters::parse(r#"{"label":["a=1","b"],"name":["x","we"]}"#).unwrap();
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert!(filters.labels("label", &labels(&[("a", "1"), ("b", "")])));
        assert!(!filters.labels("label", &labels(&[("a", "1")])));
        assert!(filters.prefix("name", "web") && !filters.prefix("name", "db"));
        assert_eq!(filters.only(&["label"]).unwrap_err().message, "invalid filter 'name'");
    }
}
