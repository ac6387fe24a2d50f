//! Executes a tree.

use std::rc::Rc;

use zeroize::Zeroizing;

use crate::{
    ast::{Branch, Command, Node, Operand, Pipeline, Templates},
    error::{Error, ErrorKind, Failure, Name},
    format,
    functions::{Function, Parameter, Special},
    limits::NESTING,
    literal::{Ideal, Number},
    text::Buffer,
    value::{Element, Int, Map, Memory, Value},
};

pub(crate) struct Exec<'t> {
    templates: &'t Templates,
    memory: &'t mut Memory,
    variables: Vec<(Rc<str>, Value)>,
    output: Buffer,
    depth: usize,
}

/// How a part of a loop's body ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// What a pipeline passes to its next command.
type Final = Option<Value>;

impl<'t> Exec<'t> {
    pub(crate) fn new(templates: &'t Templates, memory: &'t mut Memory) -> Self {
        let output = Buffer::new(memory.budget.output());
        Self { templates, memory, variables: Vec::new(), output, depth: 0 }
    }

    pub(crate) fn run(mut self, name: &str, dot: Value) -> Result<Zeroizing<Vec<u8>>, Error> {
        if let Some(nodes) = self.templates.get(name) {
            self.variables.push(("$".into(), dot.clone()));
            self.list(nodes, &dot)?;
        }
        self.memory.budget.written(self.output.len());
        Ok(self.output.finish().expect("output above the limit was refused when it was written"))
    }

    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Error> {
        match node {
            Node::Text(text) => {
                self.step(1)?;
                self.output.push(text);
                self.fits(1)?;
            }
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.print(pipeline.line, &value)?;
                }
            }
            Node::If(branch) | Node::With(branch) => {
                let visible = self.variables.len();
                let value = self.pipeline(&branch.pipeline, dot)?;
                let line = branch.pipeline.line;
                let with = matches!(node, Node::With(_));
                let flow = if value.is_true(self.memory) {
                    self.block(line, &branch.body, if with { &value } else { dot })?
                } else {
                    self.block(line, &branch.otherwise, dot)?
                };
                self.variables.truncate(visible);
                return Ok(flow);
            }
            Node::Range(branch) => return self.range(branch, dot),
            Node::Template { line, name, pipeline } => self.template(*line, name, pipeline.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn block(&mut self, line: usize, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        let visible = self.variables.len();
        self.enter(line)?;
        let flow = self.list(nodes, dot);
        self.depth -= 1;
        self.variables.truncate(visible);
        flow
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, Error> {
        let line = branch.pipeline.line;
        let visible = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let names = &branch.pipeline.variables;
        let mut empty = true;
        match &value {
            Value::Int(..) | Value::Uint(..) if names.len() > 1 => {
                return Err(failed(line, "range over a number sets only one variable"));
            }
            Value::Int(kind, end) => {
                for element in 0..*end {
                    empty = false;
                    if self.turn(branch, Value::Missing, Value::Int(*kind, element))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Uint(kind, end) => {
                for element in 0..*end {
                    empty = false;
                    if self.turn(branch, Value::Missing, Value::Uint(*kind, element))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::List(list) => {
                for (index, element) in list.items().iter().enumerate() {
                    empty = false;
                    if self.turn(branch, Value::int(index), element.clone())? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                // The loop does not visit entries that its body adds.
                let entries: Vec<_> =
                    self.memory.entries(*map).iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                self.step_at(line, entries.len())?;
                for (key, element) in entries {
                    empty = false;
                    if self.turn(branch, Value::Text(key), element)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Missing => {}
            _ => return Err(failed(line, format!("range does not loop over a {}", value.type_name()))),
        }
        let flow = if empty { self.block(line, &branch.otherwise, dot)? } else { Flow::Next };
        self.variables.truncate(visible);
        Ok(flow)
    }

    /// Executes the body once. The variables of the range are the last ones on the stack.
    fn turn(&mut self, branch: &Branch, index: Value, element: Value) -> Result<Flow, Error> {
        let pipeline = &branch.pipeline;
        self.step_at(pipeline.line, 1)?;
        let values = match pipeline.variables.len() {
            0 => vec![],
            1 => vec![element.clone()],
            _ => vec![index, element.clone()],
        };
        let first = self.variables.len().saturating_sub(values.len());
        for (at, (name, value)) in pipeline.variables.iter().zip(values).enumerate() {
            if pipeline.assigns {
                self.assign(pipeline.line, name, value)?;
            } else {
                self.variables[first + at].1 = value;
            }
        }
        self.block(pipeline.line, &branch.body, &element)
    }

    fn template(&mut self, line: usize, name: &str, pipeline: Option<&Pipeline>, dot: &Value) -> Result<(), Error> {
        let templates = self.templates;
        let Some(nodes) = templates.get(name) else {
            return Err(failed(line, format!("template {} is not defined", Name(name))));
        };
        let inner = match pipeline {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Missing,
        };
        self.enter(line)?;
        // A template does not see the variables of its caller.
        let variables = std::mem::replace(&mut self.variables, vec![("$".into(), inner.clone())]);
        self.list(nodes, &inner)?;
        self.variables = variables;
        self.depth -= 1;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?.unwrapped());
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipeline.variables {
            if pipeline.assigns {
                self.assign(pipeline.line, name, value.clone())?;
            } else {
                self.variables.push((Rc::clone(name), value.clone()));
            }
        }
        Ok(value)
    }

    fn assign(&mut self, line: usize, name: &str, value: Value) -> Result<(), Error> {
        match self.variables.iter_mut().rev().find(|(known, _)| **known == *name) {
            Some((_, known)) => {
                *known = value;
                Ok(())
            }
            None => Err(failed(line, format!("variable {} is not set", Name(name)))),
        }
    }

    fn command(&mut self, command: &Command, dot: &Value, last: Final) -> Result<Value, Error> {
        self.step_at(command.line, 1)?;
        let line = command.line;
        let first = &command.operands[0];
        if let Operand::Function(function) = first {
            return self.call(line, function, &command.operands[1..], dot, last);
        }
        if command.operands.len() > 1 || last.is_some() {
            return Err(failed(line, "only a function takes arguments"));
        }
        if matches!(first, Operand::Nil) {
            return Err(failed(line, "nil is not a command"));
        }
        self.operand(line, first, dot)
    }

    /// The value of an operand, for an argument that may have any type.
    fn operand(&mut self, line: usize, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        match operand {
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::String(text) => Ok(Value::Text(text.clone())),
            Operand::Number(number) => ideal(line, number),
            Operand::Nil => Ok(Value::Nil),
            Operand::Dot => Ok(dot.clone()),
            Operand::Field(fields) => self.fields(line, dot.clone(), fields),
            Operand::Variable(name, fields) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = known.map(|(_, value)| value.clone());
                let value = value.ok_or_else(|| failed(line, format!("variable {} is not set", Name(name))))?;
                self.fields(line, value, fields)
            }
            Operand::Function(function) => self.call(line, function, &[], dot, None),
            Operand::Parenthesis(pipeline) => {
                self.enter(line)?;
                let value = self.pipeline(pipeline, dot)?;
                self.depth -= 1;
                Ok(value)
            }
            Operand::Chain(operand, fields) => {
                let value = self.operand(line, operand, dot)?;
                self.fields(line, value, fields)
            }
        }
    }

    fn fields(&mut self, line: usize, value: Value, names: &[String]) -> Result<Value, Error> {
        let mut value = value;
        for name in names {
            value = match &value {
                Value::Missing => Value::Missing,
                Value::Map(map) => self.memory.entries(*map).get(name.as_bytes()).cloned().unwrap_or(Value::Missing),
                Value::Nil => return Err(failed(line, format!("field {} of nil", Name(name)))),
                other => {
                    return Err(failed(line, format!("a {} has no field {}", other.type_name(), Name(name))));
                }
            };
        }
        Ok(value)
    }

    fn call(
        &mut self,
        line: usize,
        function: &'static Function,
        operands: &[Operand],
        dot: &Value,
        last: Final,
    ) -> Result<Value, Error> {
        let given = operands.len() + usize::from(last.is_some());
        let fixed = function.parameters.len();
        if given < fixed || given > fixed && function.rest.is_none() {
            let wanted = if function.rest.is_some() { "at least " } else { "" };
            return Err(failed(line, format!("{}: takes {wanted}{fixed} arguments, not {given}", function.name)));
        }
        self.step_at(line, 1)?;
        let parameter = |at: usize| function.parameters.get(at).copied().or(function.rest).unwrap_or(Parameter::Any);
        if let Special::Or(truth) = function.special {
            return self.shortcut(line, operands, dot, last, truth);
        }
        let mut arguments = Vec::with_capacity(given);
        for (at, operand) in operands.iter().enumerate() {
            arguments.push(self.argument(line, function.name, operand, parameter(at), dot)?);
        }
        if let Some(last) = last {
            arguments.push(fitting(last, parameter(given - 1)).map_err(|failure| failure.at(line, function.name))?);
        }
        if let (Special::Fail, [Operand::String(text)]) = (function.special, operands) {
            // The message is a literal in the template, which everybody can read.
            let text = String::from_utf8_lossy(text).into_owned();
            return Err(failed(line, format!("fail: {}", Name(&text))));
        }
        (function.run)(self.memory, &arguments).map_err(|failure| failure.at(line, function.name))
    }

    /// `and` and `or`: the result is the first argument whose truth is `decides`, or else the last argument. Arguments
    /// after the result are not evaluated.
    fn shortcut(
        &mut self,
        line: usize,
        operands: &[Operand],
        dot: &Value,
        last: Final,
        decides: bool,
    ) -> Result<Value, Error> {
        let mut value = Value::Missing;
        for operand in operands {
            value = self.argument(line, "and", operand, Parameter::Reflect, dot)?;
            if value.is_true(self.memory) == decides {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn argument(
        &mut self,
        line: usize,
        function: &str,
        operand: &Operand,
        parameter: Parameter,
        dot: &Value,
    ) -> Result<Value, Error> {
        let mismatch = |found: &str| {
            Err(failed(line, format!("{function}: an argument is {found}, not a {}", parameter.type_name())))
        };
        match (operand, parameter) {
            (Operand::Nil, Parameter::Any) => Ok(Value::Nil),
            (Operand::Nil, Parameter::Reflect) => Ok(Value::Missing),
            (Operand::Nil, Parameter::Map) => Ok(Value::Map(Map::nil(Element::Any))),
            (Operand::Nil, _) => mismatch("nil"),
            (Operand::Bool(_) | Operand::String(_), Parameter::Any | Parameter::Reflect)
            | (Operand::Bool(_), Parameter::Bool)
            | (Operand::String(_), Parameter::Text) => self.operand(line, operand, dot),
            (Operand::Number(number), Parameter::Any | Parameter::Reflect) => ideal(line, number),
            (Operand::Number(Number { int: Some(int), .. }), Parameter::Int) => Ok(Value::Int(Int::Int, *int)),
            (Operand::Number(Number { float: Some(float), .. }), Parameter::Float) => Ok(Value::Float(*float)),
            (Operand::Bool(_), _) => mismatch("a bool"),
            (Operand::String(_), _) => mismatch("a string"),
            (Operand::Number(_), _) => mismatch("a number"),
            _ => {
                let value = self.operand(line, operand, dot)?;
                fitting(value, parameter).map_err(|failure| failure.at(line, function))
            }
        }
    }

    fn print(&mut self, line: usize, value: &Value) -> Result<(), Error> {
        self.step_at(line, 1)?;
        match value {
            Value::Missing => self.output.push(b"<no value>"),
            value => {
                format::display(self.memory, &mut self.output, value).map_err(|failure| failure.at(line, "print"))?;
            }
        }
        self.fits(line)
    }

    fn fits(&self, line: usize) -> Result<(), Error> {
        if self.output.is_full() {
            return Err(Error::new(line, ErrorKind::Limit, "the result is larger than a Secret can be"));
        }
        Ok(())
    }

    fn enter(&mut self, line: usize) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > NESTING {
            return Err(Error::new(line, ErrorKind::Limit, "templates call each other too deeply"));
        }
        Ok(())
    }

    fn step(&mut self, steps: usize) -> Result<(), Error> {
        self.step_at(1, steps)
    }

    fn step_at(&mut self, line: usize, steps: usize) -> Result<(), Error> {
        self.memory.budget.step(steps).map_err(|failure| failure.at(line, "template"))
    }
}

fn failed(line: usize, reason: impl Into<String>) -> Error {
    Error::new(line, ErrorKind::Failed, reason)
}

/// The value of a number that is written in the template, for an argument that may have any type.
fn ideal(line: usize, number: &Number) -> Result<Value, Error> {
    match number.ideal {
        Ideal::Int(int) => Ok(Value::Int(Int::Int, int)),
        Ideal::Float(float) => Ok(Value::Float(float)),
        Ideal::TooLarge => Err(failed(line, "a number overflows int")),
    }
}

/// The value as an argument of this type.
fn fitting(value: Value, parameter: Parameter) -> Result<Value, Failure> {
    let fits = match (parameter, &value) {
        (Parameter::Any, Value::Missing) => return Ok(Value::Nil),
        (Parameter::Map, Value::Missing) => return Ok(Value::Map(Map::nil(Element::Any))),
        (Parameter::Any | Parameter::Reflect, _)
        | (Parameter::Text, Value::Text(_))
        | (Parameter::Int, Value::Int(Int::Int, _))
        | (Parameter::Float, Value::Float(_))
        | (Parameter::Bool, Value::Bool(_)) => true,
        (Parameter::Map, Value::Map(map)) => map.element == Element::Any,
        _ => false,
    };
    if fits {
        return Ok(value);
    }
    let found = match &value {
        Value::Missing => "no value",
        value => value.type_name(),
    };
    Err(format!("an argument is {found}, not a {}", parameter.type_name()).into())
}
