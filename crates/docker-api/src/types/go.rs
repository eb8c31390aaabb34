//! Reads JSON as Go's `encoding/json` does: `null` means "not given", and names of fields fit whatever their case,
//! which docker-py and others rely on (`{"replicated": {..}}`).

use serde::de::{
    DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::StringDeserializer,
};
use serde_json::{Error, Map, Value};

/// A value to be read. Structs with a flattened part are read by exact names.
pub(super) struct Go(pub(super) Value);

impl<'de> Deserializer<'de> for Go {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(map) => visitor.visit_map(Fields::of(map)),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => visitor.visit_map(Fields::of(with_known_names(map, fields))),
            other => Go(other).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

/// Renames what differs from a field in case only; an exact name wins over another spelling of it.
fn with_known_names(map: Map<String, Value>, fields: &[&'static str]) -> Map<String, Value> {
    let known = |name: &str| fields.contains(&name);
    let (exact, others): (Map<_, _>, Map<_, _>) = map.into_iter().partition(|(name, _)| known(name));
    let mut read = exact;
    for (name, value) in others {
        let field = fields.iter().find(|field| field.eq_ignore_ascii_case(&name));
        let name = field.map_or(name, |field| (*field).to_owned());
        read.entry(name).or_insert(value);
    }
    read
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Go(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Fields {
    rest: serde_json::map::IntoIter,
    value: Option<Value>,
}

impl Fields {
    fn of(map: Map<String, Value>) -> Self {
        Self { rest: map.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let name: StringDeserializer<Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Go(self.value.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use crate::types::{ServiceSpec, parse};

    #[test]
    fn names_fit_whatever_their_case_and_exact_ones_win() {
        let spec: ServiceSpec = parse(
            br#"{"name": "a", "Name": "b", "mode": {"replicated": {"replicas": 2}}, "Labels": {"name": "x", "Name": "y"},
                "TaskTemplate": {"containerspec": {"image": "i", "args": ["c", "d"]}}, "nobody": 1}"#,
        )
        .unwrap();
        assert_eq!(spec.name, "b");
        assert_eq!(spec.mode.replicated.unwrap().replicas, Some(2));
        assert_eq!(spec.labels.len(), 2, "keys of maps are not names of fields");
        let container = spec.task_template.container_spec.unwrap();
        assert_eq!((container.image.as_str(), container.args.len()), ("i", 2));
    }
}
