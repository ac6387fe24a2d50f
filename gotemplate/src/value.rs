//! Values during the rendering, with Go's types.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    error::Failure,
    functions::Expression,
    limits::{Budget, VALUE_NESTING},
    salts::Salts,
    text::{Buffer, Text},
};

/// The result of a function or a pipeline. It has no Debug, because values are secrets.
#[derive(Clone)]
pub(crate) enum Value {
    /// No value: the key does not exist. The fields of a missing value are missing, too.
    Missing,
    /// `nil` as an `interface {}`. To read a field of it is an error.
    Nil,
    Bool(bool),
    Int(Int, i64),
    Uint(Uint, u64),
    Float(f64),
    Text(Text),
    List(List),
    Map(Map),
}

/// Signed integer types.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Int {
    Int,
    Int64,
}

/// Unsigned integer types.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Uint {
    Uint8,
}

/// The type of the elements of a list or a dictionary.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Element {
    /// `interface {}`
    Any,
    Text,
    Int,
    /// `[]interface {}`
    List,
}

/// A slice. It never changes. A `nil` slice has no items, and differs from an empty one where it does in Go.
#[derive(Clone)]
pub(crate) struct List {
    pub(crate) element: Element,
    items: Option<Rc<Items>>,
}

struct Items {
    values: Vec<Value>,
    depth: usize,
}

impl List {
    pub(crate) fn nil(element: Element) -> Self {
        Self { element, items: None }
    }

    pub(crate) fn items(&self) -> &[Value] {
        self.items.as_ref().map_or(&[], |items| &items.values)
    }

    pub(crate) fn is_nil(&self) -> bool {
        self.items.is_none()
    }
}

/// A dictionary, by its index in [`Memory`]. It can change, be used in several places, and contain itself.
#[derive(Clone, Copy)]
pub(crate) struct Map {
    pub(crate) element: Element,
    place: Option<usize>,
}

impl Map {
    pub(crate) fn nil(element: Element) -> Self {
        Self { element, place: None }
    }

    pub(crate) fn is_nil(self) -> bool {
        self.place.is_none()
    }

    pub(crate) fn is_same(self, other: Self) -> bool {
        self.place == other.place
    }
}

pub(crate) type Entries = BTreeMap<Text, Value>;

/// All dictionaries, and what is left of the limits.
///
/// Dictionaries are kept until the rendering ends. So nothing is freed recursively, and no cycle keeps a secret in
/// memory.
pub(crate) struct Memory {
    /// The first dictionary is the data that templates start with (`.`).
    maps: Vec<Entries>,
    nothing: Entries,
    pub(crate) budget: Budget,
    /// Where salts come from.
    pub(crate) salts: Salts,
    /// Compiled regular expressions, by their text.
    pub(crate) expressions: BTreeMap<Text, Rc<Expression>>,
}

impl Memory {
    pub(crate) fn new(data: Entries, salts: Salts, budget: Budget) -> Self {
        Self { maps: vec![data], nothing: Entries::new(), budget, salts, expressions: BTreeMap::new() }
    }

    /// The dictionary that templates start with (`.`).
    pub(crate) fn data() -> Value {
        Value::Map(Map { element: Element::Text, place: Some(0) })
    }

    /// Drops all dictionaries except the data.
    pub(crate) fn clear(&mut self) {
        self.maps.truncate(1);
    }

    /// An empty text to write to, which may become as large as the limit for one text.
    pub(crate) fn buffer(&self) -> Buffer {
        Buffer::new(self.budget.text())
    }

    pub(crate) fn text(&mut self, buffer: Buffer) -> Result<Value, Failure> {
        let bytes = buffer.finish().ok_or(Failure::Limit("a text in the template grows too large"))?;
        self.budget.memory(bytes.len() + size_of::<Value>())?;
        self.budget.step(bytes.len() / 64)?;
        Ok(Value::Text(Text::new(bytes)))
    }

    pub(crate) fn copied(&mut self, bytes: &[u8]) -> Result<Value, Failure> {
        let mut buffer = self.buffer();
        buffer.push(bytes);
        self.text(buffer)
    }

    pub(crate) fn list(&mut self, element: Element, values: Vec<Value>) -> Result<Value, Failure> {
        let inner = values.iter().map(|value| match value {
            Value::List(list) => list.items.as_ref().map_or(0, |items| items.depth),
            _ => 0,
        });
        let depth = 1 + inner.max().unwrap_or(0);
        if depth > VALUE_NESTING {
            return Err(Failure::Limit("lists are nested too deeply"));
        }
        self.budget.memory((values.len() + 1) * size_of::<Value>())?;
        self.budget.step(values.len())?;
        Ok(Value::List(List { element, items: Some(Rc::new(Items { values, depth })) }))
    }

    pub(crate) fn map(&mut self, element: Element, entries: Entries) -> Result<Value, Failure> {
        self.budget.memory((entries.len() + 1) * 4 * size_of::<Value>())?;
        self.budget.step(entries.len())?;
        self.maps.push(entries);
        Ok(Value::Map(Map { element, place: Some(self.maps.len() - 1) }))
    }

    pub(crate) fn entries(&self, map: Map) -> &Entries {
        map.place.map_or(&self.nothing, |place| &self.maps[place])
    }

    /// Sets a key or, with `None`, removes it.
    pub(crate) fn set(&mut self, map: Map, key: &[u8], value: Option<Value>) -> Result<(), Failure> {
        let Some(place) = map.place else {
            return match value {
                Some(_) => Err("the dictionary is nil".into()),
                None => Ok(()),
            };
        };
        match value {
            Some(value) => {
                self.budget.memory(key.len() + 4 * size_of::<Value>())?;
                self.maps[place].insert(Text::copied(key), value);
            }
            None => drop(self.maps[place].remove(key)),
        }
        Ok(())
    }
}

impl Value {
    pub(crate) fn int(value: usize) -> Self {
        Self::Int(Int::Int, i64::try_from(value).unwrap_or(i64::MAX))
    }

    pub(crate) fn int64(value: i64) -> Self {
        Self::Int(Int::Int64, value)
    }

    pub(crate) fn is_nil(&self) -> bool {
        matches!(self, Self::Missing | Self::Nil)
    }

    /// The value as the result of a pipeline, in which a nil interface counts as no value.
    pub(crate) fn unwrapped(self) -> Self {
        if matches!(self, Self::Nil) { Self::Missing } else { self }
    }

    /// `%T`
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(Int::Int, _) => "int",
            Self::Int(Int::Int64, _) => "int64",
            Self::Uint(Uint::Uint8, _) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(list) => match list.element {
                Element::Any => "[]interface {}",
                Element::Text => "[]string",
                Element::Int => "[]int",
                Element::List => "[][]interface {}",
            },
            Self::Map(map) => match map.element {
                Element::Text => "map[string]string",
                _ => "map[string]interface {}",
            },
        }
    }

    /// `reflect.Kind`
    pub(crate) fn kind_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "invalid",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            _ => self.type_name(),
        }
    }

    /// Whether `if` treats the value as true. This is the opposite of sprig's `empty`.
    pub(crate) fn is_true(&self, memory: &Memory) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(_, value) => *value != 0,
            Self::Uint(_, value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items().is_empty(),
            Self::Map(map) => !memory.entries(*map).is_empty(),
        }
    }
}
