//! Reads JSON as Go's `encoding/json` does: `null` means "not given", and names of fields fit whatever their case,
//! which docker-py and others rely on (`{"replicated": {..}}`). Writes it, too.
//!
//! ```text
//!  text --serde_json--> Json, a tree that borrows from the text --Wire::read--> struct
//!  text <----------------------Written::write, leaves by serde_json------------ struct
//! ```
//!
//! What `serde` derives for a struct is compiled again for every format that it meets; the tree and the text are met by one
//! function each per struct.

use super::{StrSlice, Time};
use serde::de::{
    Deserialize, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
    value::{MapDeserializer, SeqDeserializer},
};
use serde::ser::{Serialize, Serializer};
use serde_json::{Error, Value};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// A JSON value, its members in the order of the text; names that come twice are there twice.
#[derive(Debug, Clone)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<Member<'a>>),
}

/// A name and its value.
type Member<'a> = (Cow<'a, str>, Json<'a>);

impl Json<'_> {
    /// Returns what an error calls this value.
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(b) => Unexpected::Bool(*b),
            Self::Unsigned(n) => Unexpected::Unsigned(*n),
            Self::Signed(n) => Unexpected::Signed(*n),
            Self::Float(f) => Unexpected::Float(*f),
            Self::Text(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }

    fn is_not(&self, expected: &str) -> Error {
        Error::invalid_type(self.unexpected(), &expected)
    }
}

/// *Limit* of what an error says of a value. *Unit:* characters.
const SAID_MAX: usize = 250;
/// *Limit* of what it says of a name that a client made up. *Unit:* characters.
const NAME_MAX: usize = 60;

/// Returns an error that says in which field it was met.
fn in_field(name: &str, error: &Error) -> Error {
    let cut = |text: &str, max| match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    };
    Error::custom(format!("{}: {}", cut(name, NAME_MAX), cut(&error.to_string(), SAID_MAX)))
}

/// *Unit:* bytes, of a name and a short value.
const FIELD_BYTES: usize = 16;

/// *Limit* of the room that a list is given before it is written. *Unit:* bytes.
const RESERVED_MAX: usize = 1 << 20;

/// JSON that is being written: whole values, one behind the other.
#[derive(Debug, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// Returns the text of a value.
    pub fn of(value: &dyn Written) -> Vec<u8> {
        let mut text = Self::default();
        value.write(&mut text);
        text.0
    }

    /// Adds a value without members.
    fn leaf(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer(&mut self.0, value)
            .expect("strings and numbers are JSON, and memory takes all");
    }

    /// Adds a list of what `put` adds of each item.
    pub fn list<T, I>(&mut self, items: I, mut put: impl FnMut(&mut Self, T))
    where
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        let mut items = items.into_iter();
        self.0.push(b'[');
        if let Some(first) = items.next() {
            let before = self.0.len();
            put(self, first);
            // Items of a list are alike: room for all, at once.
            self.0.reserve(items.len().saturating_mul(self.0.len() - before + 1).min(RESERVED_MAX));
        }
        for item in items {
            self.0.push(b',');
            put(self, item);
        }
        self.0.push(b']');
    }
}

/// An object that is being written.
pub(super) struct Object<'a> {
    to: &'a mut Text,
    has_members: bool,
}

impl<'a> Object<'a> {
    fn begin(to: &'a mut Text) -> Self {
        to.0.push(b'{');
        Self { to, has_members: false }
    }

    /// Makes room for so many fields at once, as most of them are.
    pub(super) fn make_room(&mut self, fields: usize) {
        self.to.0.reserve(fields * FIELD_BYTES);
    }

    /// Adds a field. `between`: what comes before its value, a comma first (`,"Name":`).
    pub(super) fn field(&mut self, between: &'static str, value: &dyn Written) {
        let between = between.as_bytes();
        self.to.0.extend_from_slice(if self.has_members { between } else { &between[1..] });
        self.has_members = true;
        value.write(self.to);
    }

    /// Adds a member of a map.
    fn entry(&mut self, name: &str, value: &dyn Written) {
        if self.has_members {
            self.to.0.push(b',');
        }
        self.has_members = true;
        self.to.leaf(name);
        self.to.0.push(b':');
        value.write(self.to);
    }

    fn end(self) {
        self.to.0.push(b'}');
    }
}

/// What is written as JSON.
pub trait Written {
    fn write(&self, to: &mut Text);
}

/// Gives a value to any format of `serde`'s. (What is asked for often is [`Text::of`] it.)
pub(super) fn serialize<S: Serializer>(value: &dyn Written, to: S) -> Result<S::Ok, S::Error> {
    let text = Text::of(value);
    serde_json::from_slice::<Json<'_>>(&text).map_err(serde::ser::Error::custom)?.serialize(to)
}

/// What is in Docker's JSON.
pub trait Wire: Written + Sized {
    /// Reads a value.
    ///
    /// # Errors
    /// When it has another type.
    fn read(json: Json<'_>) -> Result<Self, Error>;

    /// Returns the value of a map's `"name": null`; `None` leaves the name out.
    fn of_null() -> Option<Self> {
        None
    }
}

/// A struct: the object that it is on the wire, member by member.
pub(super) trait Fields {
    /// Reads the field of exactly this name, or gives the value back.
    fn set<'a>(&mut self, name: &str, value: Json<'a>) -> Result<Option<Json<'a>>, Error>;

    /// Returns the name of the field that is called so in another case.
    fn spelled(&self, name: &str) -> Option<&'static str>;

    /// Adds what is written of this struct.
    fn put(&self, object: &mut Object<'_>);
}

pub(super) fn write(fields: &dyn Fields, to: &mut Text) {
    let mut object = Object::begin(to);
    fields.put(&mut object);
    object.end();
}

/// Fills the fields of `what`; an exact name wins over another spelling of it, and of those the first.
pub(super) fn fill(fields: &mut dyn Fields, what: &str, json: Json<'_>) -> Result<(), Error> {
    let Json::Object(object) = json else { return Err(json.is_not(what)) };
    let (mut exact, mut others) = (Vec::with_capacity(object.len()), Vec::new());
    for (name, value) in object.into_iter().filter(|(_, value)| !matches!(value, Json::Null)) {
        match fields.set(&name, value).map_err(|error| in_field(&name, &error))? {
            None => exact.push(name),
            Some(value) => others.push((name, value)),
        }
    }
    for (name, value) in others {
        if let Some(field) = fields.spelled(&name)
            && !exact.iter().any(|known| known == field)
        {
            fields.set(field, value).map_err(|error| in_field(field, &error))?;
            exact.push(Cow::Borrowed(field));
        }
    }
    Ok(())
}

macro_rules! plain {
    ($($type:ty)*) => {
        $(impl Wire for $type {
            fn read(json: Json<'_>) -> Result<Self, Error> {
                Self::deserialize(json)
            }
        }

        impl Written for $type {
            fn write(&self, to: &mut Text) {
                to.leaf(self);
            }
        })*
    };
}

plain! { bool u8 u16 u32 u64 i32 i64 f64 Value }

/// Of nothing: `null`, which Docker takes for a body that is not there.
impl Written for () {
    fn write(&self, to: &mut Text) {
        to.leaf(self);
    }
}

impl Wire for String {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        match json {
            Json::Text(text) => Ok(text.into_owned()),
            other => Err(other.is_not("a string")),
        }
    }
}

impl Written for String {
    fn write(&self, to: &mut Text) {
        to.leaf(self);
    }
}

impl Written for str {
    fn write(&self, to: &mut Text) {
        to.leaf(self);
    }
}

impl<T: ToOwned<Owned: Wire> + Written + ?Sized> Wire for Cow<'_, T> {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        T::Owned::read(json).map(Cow::Owned)
    }
}

impl<T: ToOwned + Written + ?Sized> Written for Cow<'_, T> {
    fn write(&self, to: &mut Text) {
        T::write(self, to);
    }
}

impl<T: Wire> Wire for Option<T> {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        match json {
            Json::Null => Ok(None),
            json => T::read(json).map(Some),
        }
    }

    fn of_null() -> Option<Self> {
        Some(None)
    }
}

impl<T: Written> Written for Option<T> {
    fn write(&self, to: &mut Text) {
        match self {
            Some(value) => value.write(to),
            None => ().write(to),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        match json {
            Json::List(items) => items.into_iter().map(T::read).collect(),
            other => Err(other.is_not("a sequence")),
        }
    }
}

impl<T: Written> Written for Vec<T> {
    fn write(&self, to: &mut Text) {
        to.list(self, |to, item| item.write(to));
    }
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        let wrong =
            |all: Vec<T>| Error::invalid_length(all.len(), &format!("an array of length {N}").as_str());
        Vec::<T>::read(json)?.try_into().map_err(wrong)
    }
}

impl<T: Written, const N: usize> Written for [T; N] {
    fn write(&self, to: &mut Text) {
        to.list(self, |to, item| item.write(to));
    }
}

impl<T: Wire> Wire for BTreeMap<String, T> {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        let Json::Object(object) = json else { return Err(json.is_not("a map")) };
        let mut read = Self::new();
        for (name, value) in object {
            let value = match value {
                Json::Null => T::of_null(),
                value => Some(T::read(value).map_err(|error| in_field(&name, &error))?),
            };
            if let Some(value) = value {
                read.insert(name.into_owned(), value);
            }
        }
        Ok(read)
    }
}

impl<T: Written> Written for BTreeMap<String, T> {
    fn write(&self, to: &mut Text) {
        let mut object = Object::begin(to);
        for (name, value) in self {
            object.entry(name, value);
        }
        object.end();
    }
}

impl Wire for StrSlice {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        match json {
            Json::Text(one) => Ok(Self(vec![one.into_owned()])),
            many => Vec::read(many).map(Self),
        }
    }
}

impl Written for StrSlice {
    fn write(&self, to: &mut Text) {
        self.0.write(to);
    }
}

impl Wire for Time {
    fn read(json: Json<'_>) -> Result<Self, Error> {
        let Json::Text(text) = json else { return Err(json.is_not("a string")) };
        Self::parse(&text).ok_or_else(|| Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

impl Written for Time {
    fn write(&self, to: &mut Text) {
        to.leaf(self);
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Bool(b) => to.serialize_bool(*b),
            Self::Unsigned(n) => to.serialize_u64(*n),
            Self::Signed(n) => to.serialize_i64(*n),
            Self::Float(f) => to.serialize_f64(*f),
            Self::Text(text) => to.serialize_str(text),
            Self::List(items) => to.collect_seq(items),
            Self::Object(members) => to.collect_map(members.iter().map(|(name, value)| (&**name, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(b))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(Json::Unsigned(n))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(Json::Signed(n))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Self::Value, E> {
        Ok(Json::Float(f))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::new();
        while let Some(Name(name)) = entries.next_key()? {
            object.push((name, entries.next_value()?));
        }
        Ok(Json::Object(object))
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrowed)
    }
}

/// For the plain values, whose checks and words are serde's.
impl<'de> Deserializer<'de> for Json<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(b) => visitor.visit_bool(b),
            Self::Unsigned(n) => visitor.visit_u64(n),
            Self::Signed(n) => visitor.visit_i64(n),
            Self::Float(f) => visitor.visit_f64(f),
            Self::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Self::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Self::List(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Self::Object(object) => visitor.visit_map(MapDeserializer::new(object.into_iter())),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Json<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::types::{ContainerCreate, Health, ServiceSpec, StringMap, Text, Wire, Written, parse};

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

    #[test]
    fn parts_of_a_struct_are_read_from_its_own_object() {
        let json = br#"{"Image": "i", "cmd": "run", "hostConfig": {"memory": 5, "Privileged": true, "CpuShares": null}}"#;
        let create: ContainerCreate = parse(json).unwrap();
        assert_eq!(
            (create.config.image.as_str(), create.config.cmd.unwrap().0),
            ("i", vec!["run".to_owned()])
        );
        let host = create.host_config.unwrap();
        assert_eq!((host.resources.memory, host.privileged), (5, true));
    }

    #[test]
    fn null_is_not_given_and_in_a_map_nothing() {
        let json = br#"{"Env": null, "Labels": {"a": null, "b": "\u0041"}, "Volumes": {},
            "NetworkingConfig": {"EndpointsConfig": {"web": null}}}"#;
        let create: ContainerCreate = parse(json).unwrap();
        assert_eq!(create.config.env, Vec::<String>::new());
        assert_eq!(create.config.labels, [("b".to_owned(), "A".to_owned())].into());
        assert_eq!(create.networking_config.unwrap().endpoints_config, [("web".to_owned(), None)].into());
    }

    #[test]
    fn what_has_another_type_is_refused_by_its_field_and_with_the_words_of_serde() {
        fn refused<T: Wire + std::fmt::Debug>(json: &str) -> String {
            parse::<T>(json.as_bytes()).unwrap_err().to_string()
        }
        for (json, said) in [
            ("[]", "invalid type: sequence, expected struct ServiceSpec"),
            (r#"{"Name": 1}"#, "Name: invalid type: integer `1`, expected a string"),
            (r#"{"Labels": []}"#, "Labels: invalid type: sequence, expected a map"),
            (
                r#"{"Mode": {"Replicated": {"Replicas": -1}}}"#,
                "Mode: Replicated: Replicas: invalid value: integer `-1`, expected u64",
            ),
            (
                r#"{"TaskTemplate": {"Networks": [null]}}"#,
                "TaskTemplate: Networks: invalid type: null, expected struct NetworkAttachmentConfig",
            ),
            (r#"{"Name": "#, "EOF while parsing a value at line 1 column 9"),
        ] {
            assert_eq!(refused::<ServiceSpec>(json), said, "{json}");
        }
        assert_eq!(refused::<[u32; 2]>("[1]"), "invalid length 1, expected an array of length 2");
    }

    #[test]
    fn what_is_written_is_read_again_and_parts_stay_in_their_place() {
        let json = br#"{"Image": "i", "StopTimeout": 3, "HostConfig": {"Memory": 5, "BlkioWeightDevice": [{"a": -1.5}]}}"#;
        let create: ContainerCreate = parse(json).unwrap();
        let text = serde_json::to_string(&create).unwrap();
        assert_eq!(parse::<ContainerCreate>(text.as_bytes()).unwrap(), create);
        let place = |name| text.find(name).unwrap();
        let names = [
            r#"{"Hostname":"","#,
            r#""StopTimeout":3"#,
            r#""Isolation":"","CpuShares":0"#,
            r#""MaskedPaths":null"#,
        ];
        assert!(names.map(place).is_sorted(), "{text}");
        assert!(
            !text.contains("NetworkingConfig") && text.contains(r#""BlkioWeightDevice":[{"a":-1.5}]"#),
            "{text}"
        );
    }

    #[test]
    fn what_is_left_out_leaves_no_comma_and_names_and_texts_are_escaped() {
        let health = |interval, timeout| Health { interval, timeout, ..Health::default() };
        let labels: StringMap =
            [("a\"b".to_owned(), "c\nd\u{1}".to_owned()), (String::new(), "\u{e9}".to_owned())].into();
        for (value, text) in [
            (&health(0, 0) as &dyn Written, "{}"),
            (&health(0, 3), r#"{"Timeout":3}"#),
            (&health(2, 3), r#"{"Interval":2,"Timeout":3}"#),
            (&labels, "{\"\":\"\u{e9}\",\"a\\\"b\":\"c\\nd\\u0001\"}"),
            (&vec![Some(1_u64), None, Some(u64::MAX)], "[1,null,18446744073709551615]"),
            (&Vec::<Health>::new(), "[]"),
            (&f64::NAN, "null"),
        ] {
            assert_eq!(String::from_utf8(Text::of(value)).unwrap(), text);
        }
        // Any other format gets the same.
        let through_serde = serde_json::to_string(&health(2, 3)).unwrap();
        assert_eq!(through_serde.as_bytes(), Text::of(&health(2, 3)));
    }

    #[test]
    fn any_value_stays_as_it_is() {
        let text = r#"{"b":[1,-2,0.5,null,true,"x"],"a":{"c":null}}"#;
        assert_eq!(parse::<serde_json::Value>(text.as_bytes()).unwrap().to_string(), text);
    }
}
