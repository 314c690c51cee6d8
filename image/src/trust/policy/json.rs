//! JSON of which every part is accounted for: no name twice, none unknown, and each error says where.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value; objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    /// Numbers, `true`, `false`, `null`: nothing here is any of these.
    Plain(&'static str),
}

/// A value and where it is: `transports.docker["example.com"][0]`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) json: Json,
}

impl Place {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let json = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(Self { path: String::new(), json })
    }

    pub(super) fn wrong(&self, text: &str) -> String {
        if self.path.is_empty() { text.to_owned() } else { format!("{}: {text}", self.path) }
    }

    pub(super) fn text(&self) -> Result<String, String> {
        match &self.json {
            Json::Text(text) => Ok(text.clone()),
            other => Err(self.wrong(&format!("must be text, and is {}", other.kind()))),
        }
    }

    pub(super) fn list(self) -> Result<Vec<Place>, String> {
        match self.json {
            Json::List(list) => {
                let place = |(i, json)| Place { path: format!("{}[{i}]", self.path), json };
                Ok(list.into_iter().enumerate().map(place).collect())
            }
            ref other => Err(self.wrong(&format!("must be a list, and is {}", other.kind()))),
        }
    }

    /// The members of an object whose names are fixed.
    pub(super) fn members(self) -> Result<Members, String> {
        let entries = self.clone().object(|path, name| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        })?;
        Ok(Members { path: self.path, entries })
    }

    /// The members of an object whose names are anything.
    pub(super) fn entries(self) -> Result<Vec<(String, Place)>, String> {
        self.object(|path, name| format!("{path}[\"{}\"]", name.escape_debug()))
    }

    fn object(self, path: impl Fn(&str, &str) -> String) -> Result<Vec<(String, Place)>, String> {
        match self.json {
            Json::Object(entries) => {
                let place = |(name, json): (String, Json)| {
                    let path = path(&self.path, &name);
                    (name, Place { path, json })
                };
                Ok(entries.into_iter().map(place).collect())
            }
            ref other => Err(self.wrong(&format!("must be an object, and is {}", other.kind()))),
        }
    }
}

/// Members that are taken one by one; what is left in the end is unknown.
pub(super) struct Members {
    pub(super) path: String,
    entries: Vec<(String, Place)>,
}

impl Members {
    pub(super) fn take(&mut self, name: &str) -> Option<Place> {
        let index = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(index).1)
    }

    pub(super) fn require(&mut self, name: &str) -> Result<Place, String> {
        self.take(name).ok_or_else(|| self.wrong(&format!("`{name}` is missing")))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }

    pub(super) fn wrong(&self, text: &str) -> String {
        if self.path.is_empty() { text.to_owned() } else { format!("{}: {text}", self.path) }
    }

    pub(super) fn end(self) -> Result<(), String> {
        match self.entries.first() {
            None => Ok(()),
            Some((name, _)) => Err(self.wrong(&format!("`{}` is unknown here", name.escape_debug()))),
        }
    }
}

impl Json {
    fn kind(&self) -> &'static str {
        match self {
            Json::Text(_) => "text",
            Json::List(_) => "a list",
            Json::Object(_) => "an object",
            Json::Plain(kind) => kind,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Plain("a yes or no"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Plain("a number"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Plain("a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Plain("a number"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Plain("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(json) = sequence.next_element()? {
            list.push(json);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut names = std::collections::BTreeSet::new();
        let mut entries = Vec::new();
        while let Some((name, json)) = map.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("`{}` is there twice", name.escape_debug())));
            }
            entries.push((name, json));
        }
        Ok(Json::Object(entries))
    }
}
