//! A template as a tree.

use std::{collections::BTreeMap, rc::Rc};

use crate::{functions::Function, literal::Number, text::Text};

/// Every template in a text, by its name.
pub(crate) type Templates = BTreeMap<String, Rc<[Node]>>;

pub(crate) enum Node {
    Text(Vec<u8>),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { line: usize, name: String, pipeline: Option<Pipeline> },
    Break,
    Continue,
}

/// An `{{if}}`, `{{with}}` or `{{range}}`: `body` is the part before `{{else}}`, `otherwise` the part after it.
pub(crate) struct Branch {
    pub(crate) pipeline: Pipeline,
    pub(crate) body: Vec<Node>,
    pub(crate) otherwise: Vec<Node>,
}

/// `$a, $b := command | command`
pub(crate) struct Pipeline {
    pub(crate) line: usize,
    pub(crate) variables: Vec<Rc<str>>,
    /// `=` instead of `:=`
    pub(crate) assigns: bool,
    pub(crate) commands: Vec<Command>,
}

/// `operand operand …`; there always is a first one.
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) operands: Vec<Operand>,
}

pub(crate) enum Operand {
    Bool(bool),
    String(Text),
    Number(Number),
    Nil,
    Dot,
    /// `.a.b`
    Field(Vec<String>),
    /// `$a.b.c`
    Variable(Rc<str>, Vec<String>),
    Function(&'static Function),
    /// `(pipeline)`
    Parenthesis(Box<Pipeline>),
    /// `(pipeline).a.b`, `function.a.b`
    Chain(Box<Operand>, Vec<String>),
}

/// Whether a template has only white space. Such a template can be replaced by another one of the same name.
pub(crate) fn is_empty(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| match node {
        Node::Text(text) => std::str::from_utf8(text).is_ok_and(|text| text.trim().is_empty()),
        _ => false,
    })
}
