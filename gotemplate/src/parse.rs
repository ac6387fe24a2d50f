//! Parses tokens into a tree, by the grammar of Go's `text/template/parse`.

use std::rc::Rc;

use crate::{
    ast::{self, Branch, Command, Node, Operand, Pipeline, Templates},
    error::{Error, ErrorKind, Name},
    functions::{self, Function, Known},
    lex::{self, Keyword, Kind, Token},
    limits::NESTING,
    text::Text,
};

/// All templates in `text`. What is outside of `{{define}}` is the template `name`.
pub(crate) fn parse(name: &str, text: &str) -> Result<Templates, Error> {
    let tokens = lex::lex(text)?;
    let mut parser =
        Parser { tokens, at: 0, templates: Templates::new(), variables: vec!["$".into()], loops: 0, nesting: 0 };
    let mut nodes = Vec::new();
    while *parser.peek() != Kind::End {
        if parser.definition()? {
            continue;
        }
        match parser.node()? {
            Part::Node(node) => nodes.push(node),
            Part::End => return Err(parser.error("unexpected {{end}}")),
            Part::Else(_) => return Err(parser.error("unexpected {{else}}")),
        }
    }
    parser.add(name, nodes)?;
    Ok(parser.templates)
}

/// How many variables can be visible at the same time. There is a limit because each use of a variable searches all of
/// them.
const VARIABLES: usize = 256;

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    templates: Templates,
    /// The variables that are visible at the current token.
    variables: Vec<Rc<str>>,
    loops: usize,
    nesting: usize,
}

enum Part {
    Node(Node),
    End,
    Else(Else),
}

/// What follows `else` in its action.
#[derive(Clone, Copy, PartialEq)]
enum Else {
    Nothing,
    If,
    With,
}

#[derive(Clone, Copy, PartialEq)]
enum Control {
    If,
    With,
    Range,
}

impl Parser {
    /// `{{define "name"}}`, which is allowed only outside of all blocks.
    fn definition(&mut self) -> Result<bool, Error> {
        let start = self.at;
        if *self.peek() != Kind::Open {
            return Ok(false);
        }
        self.at += 1;
        self.spaces();
        if *self.peek() != Kind::Keyword(Keyword::Define) {
            self.at = start;
            return Ok(false);
        }
        self.at += 1;
        let name = self.template_name()?;
        self.close()?;
        self.separate_template(&name)?;
        Ok(true)
    }

    /// Parses the body of a `{{define}}` or `{{block}}`, which is a template of its own, up to its `{{end}}`.
    fn separate_template(&mut self, name: &str) -> Result<(), Error> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, end) = self.list()?;
        if end.is_some() {
            return Err(self.error("unexpected {{else}}"));
        }
        (self.variables, self.loops) = (variables, loops);
        self.add(name, nodes)
    }

    fn add(&mut self, name: &str, nodes: Vec<Node>) -> Result<(), Error> {
        match self.templates.get(name) {
            Some(known) if !ast::is_empty(known) => {
                if !ast::is_empty(&nodes) {
                    return Err(self.error(format!("template {} is defined twice", Name(name))));
                }
            }
            _ => {
                self.templates.insert(name.into(), nodes.into());
            }
        }
        Ok(())
    }

    /// Parses everything up to `{{end}}` (`None`) or `{{else}}`.
    fn list(&mut self) -> Result<(Vec<Node>, Option<Else>), Error> {
        self.nesting += 1;
        if self.nesting > NESTING {
            return Err(Error::new(self.line(), ErrorKind::Limit, "blocks are nested too deeply"));
        }
        let mut nodes = Vec::new();
        loop {
            if *self.peek() == Kind::End {
                return Err(self.error("a block has no {{end}}"));
            }
            let end = match self.node()? {
                Part::Node(node) => {
                    nodes.push(node);
                    continue;
                }
                Part::End => None,
                Part::Else(after) => Some(after),
            };
            self.nesting -= 1;
            return Ok((nodes, end));
        }
    }

    fn node(&mut self) -> Result<Part, Error> {
        match self.next() {
            Kind::Text(text) => Ok(Part::Node(Node::Text(text))),
            Kind::Open => self.action(),
            _ => Err(self.error("unexpected token")),
        }
    }

    fn action(&mut self) -> Result<Part, Error> {
        self.spaces();
        let Kind::Keyword(keyword) = *self.peek() else {
            return Ok(Part::Node(Node::Action(self.pipeline(None, &Kind::Close)?)));
        };
        self.at += 1;
        let node = match keyword {
            Keyword::If => Node::If(self.control(Control::If)?),
            Keyword::With => Node::With(self.control(Control::With)?),
            Keyword::Range => Node::Range(self.control(Control::Range)?),
            Keyword::Template => self.template()?,
            Keyword::Block => self.block()?,
            Keyword::Break => self.leave(Node::Break)?,
            Keyword::Continue => self.leave(Node::Continue)?,
            Keyword::End => {
                self.close()?;
                return Ok(Part::End);
            }
            Keyword::Else => return self.otherwise(),
            Keyword::Define => return Err(self.error("{{define}} must not be inside of a block")),
        };
        Ok(Part::Node(node))
    }

    fn otherwise(&mut self) -> Result<Part, Error> {
        self.spaces();
        let after = match self.peek() {
            Kind::Keyword(Keyword::If) => Else::If,
            Kind::Keyword(Keyword::With) => Else::With,
            _ => Else::Nothing,
        };
        match after {
            Else::Nothing => self.close()?,
            _ => self.at += 1,
        }
        Ok(Part::Else(after))
    }

    fn leave(&mut self, node: Node) -> Result<Node, Error> {
        self.close()?;
        if self.loops == 0 {
            return Err(self.error("{{break}} or {{continue}} outside of a {{range}} block"));
        }
        Ok(node)
    }

    fn control(&mut self, control: Control) -> Result<Branch, Error> {
        let visible = self.variables.len();
        let pipeline = self.pipeline((control == Control::Range).then_some(control), &Kind::Close)?;
        self.loops += usize::from(control == Control::Range);
        let (body, end) = self.list()?;
        self.loops -= usize::from(control == Control::Range);
        let otherwise = match end {
            None => Vec::new(),
            // `{{else if b}}` is `{{else}}{{if b}}` with one `{{end}}` for both.
            Some(Else::If) if control == Control::If => vec![Node::If(self.nested(control)?)],
            Some(Else::With) if control == Control::With => vec![Node::With(self.nested(control)?)],
            Some(Else::Nothing) => {
                let (otherwise, end) = self.list()?;
                if end.is_some() {
                    return Err(self.error("unexpected {{else}}"));
                }
                otherwise
            }
            Some(_) => return Err(self.error("this {{else}} does not fit its block")),
        };
        self.variables.truncate(visible);
        Ok(Branch { pipeline, body, otherwise })
    }

    fn nested(&mut self, control: Control) -> Result<Branch, Error> {
        self.nesting += 1;
        if self.nesting > NESTING {
            return Err(Error::new(self.line(), ErrorKind::Limit, "blocks are nested too deeply"));
        }
        let branch = self.control(control)?;
        self.nesting -= 1;
        Ok(branch)
    }

    fn template(&mut self) -> Result<Node, Error> {
        let line = self.line();
        let name = self.template_name()?;
        self.spaces();
        let pipeline = match self.peek() {
            Kind::Close => {
                self.at += 1;
                None
            }
            _ => Some(self.pipeline(None, &Kind::Close)?),
        };
        Ok(Node::Template { line, name, pipeline })
    }

    fn block(&mut self) -> Result<Node, Error> {
        let line = self.line();
        let name = self.template_name()?;
        let pipeline = Some(self.pipeline(None, &Kind::Close)?);
        self.separate_template(&name)?;
        Ok(Node::Template { line, name, pipeline })
    }

    fn template_name(&mut self) -> Result<String, Error> {
        self.spaces();
        match self.next() {
            Kind::String(name) => Ok(String::from_utf8_lossy(&name).into_owned()),
            _ => Err(self.error("expected the name of a template in quotes")),
        }
    }

    /// Parses a pipeline up to `end`, which is consumed, too.
    fn pipeline(&mut self, control: Option<Control>, end: &Kind) -> Result<Pipeline, Error> {
        self.spaces();
        let line = self.line();
        let (variables, assigns) = self.declarations(control)?;
        let mut commands: Vec<Command> = Vec::new();
        loop {
            self.spaces();
            if self.peek() == end {
                self.at += 1;
                break;
            }
            let command = self.command(end)?;
            let executable = !matches!(
                command.operands[0],
                Operand::Bool(_) | Operand::Dot | Operand::Nil | Operand::Number(_) | Operand::String(_)
            );
            if !commands.is_empty() && !executable {
                return Err(self.error("only a function, a field or a variable can follow |"));
            }
            commands.push(command);
        }
        if commands.is_empty() {
            return Err(self.error("a value is missing"));
        }
        Ok(Pipeline { line, variables, assigns, commands })
    }

    /// `$a :=`, `$a =`, and in a range also `$a, $b :=`.
    fn declarations(&mut self, control: Option<Control>) -> Result<(Vec<Rc<str>>, bool), Error> {
        let mut names: Vec<Rc<str>> = Vec::new();
        loop {
            self.spaces();
            let start = self.at;
            let Kind::Variable(name) = self.peek().clone() else {
                // `range $a, 1` and `range $a, := x` are refused here. `range $a, }}` is refused later, because its
                // value is missing.
                if names.is_empty() || matches!(self.peek(), Kind::Close | Kind::RightParen) {
                    return Ok((names, false));
                }
                return Err(self.error("range can only set variables"));
            };
            self.at += 1;
            self.spaces();
            let kind = self.peek().clone();
            if !matches!(kind, Kind::Declare | Kind::Assign | Kind::Comma) {
                self.at = start;
                return Ok((names, false));
            }
            self.at += 1;
            let name: Rc<str> = name.into();
            if self.variables.len() >= VARIABLES {
                return Err(Error::new(self.line(), ErrorKind::Limit, "the template sets too many variables"));
            }
            self.variables.push(Rc::clone(&name));
            names.push(name);
            if kind != Kind::Comma {
                return Ok((names, kind == Kind::Assign));
            }
            if control != Some(Control::Range) || names.len() > 1 {
                return Err(self.error("too many variables are set"));
            }
        }
    }

    /// Parses a command up to `|`, which is consumed, or up to `end`, which is not.
    fn command(&mut self, end: &Kind) -> Result<Command, Error> {
        let line = self.line();
        let mut operands = Vec::new();
        loop {
            self.spaces();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            match self.peek() {
                Kind::Space => {}
                Kind::Bar => {
                    self.at += 1;
                    break;
                }
                kind if kind == end => break,
                _ => return Err(self.error("unexpected token in a command")),
            }
        }
        if operands.is_empty() {
            return Err(self.error("a command is empty"));
        }
        Ok(Command { line, operands })
    }

    /// A term, and the fields that follow it without a space.
    fn operand(&mut self) -> Result<Option<Operand>, Error> {
        let Some(term) = self.term()? else { return Ok(None) };
        let mut fields = Vec::new();
        while let Kind::Field(name) = self.peek() {
            fields.push(name.clone());
            self.at += 1;
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        Ok(Some(match term {
            Operand::Field(mut names) => {
                names.extend(fields);
                Operand::Field(names)
            }
            Operand::Variable(name, mut names) => {
                names.extend(fields);
                Operand::Variable(name, names)
            }
            Operand::Function(_) | Operand::Parenthesis(_) | Operand::Chain(..) => {
                Operand::Chain(Box::new(term), fields)
            }
            _ => return Err(self.error("a literal has no fields")),
        }))
    }

    fn term(&mut self) -> Result<Option<Operand>, Error> {
        let term = match self.peek().clone() {
            Kind::Bool(value) => Operand::Bool(value),
            Kind::String(value) => Operand::String(Text::copied(&value)),
            Kind::Number(number) => Operand::Number(number),
            Kind::Nil => Operand::Nil,
            Kind::Dot => Operand::Dot,
            Kind::Field(name) => Operand::Field(vec![name]),
            Kind::Variable(name) => match self.variables.iter().find(|known| ***known == *name) {
                Some(name) => Operand::Variable(Rc::clone(name), Vec::new()),
                None => return Err(self.error(format!("variable {} is not set", Name(&name)))),
            },
            Kind::Identifier(name) => Operand::Function(self.function(&name)?),
            Kind::LeftParen => return self.parenthesis().map(Some),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(term))
    }

    fn parenthesis(&mut self) -> Result<Operand, Error> {
        self.nesting += 1;
        if self.nesting > NESTING {
            return Err(Error::new(self.line(), ErrorKind::Limit, "parentheses are nested too deeply"));
        }
        self.at += 1;
        let pipeline = self.pipeline(None, &Kind::RightParen)?;
        self.nesting -= 1;
        Ok(Operand::Parenthesis(Box::new(pipeline)))
    }

    fn function(&self, name: &str) -> Result<&'static Function, Error> {
        match functions::find(name) {
            Known::Function(function) => Ok(function),
            Known::Unsupported(why) => Err(Error::new(
                self.line(),
                ErrorKind::NotSupported,
                format!("function {name} is not supported: {why}"),
            )),
            Known::No => {
                Err(Error::new(self.line(), ErrorKind::NotDefined, format!("function {} is not defined", Name(name))))
            }
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        self.spaces();
        match self.next() {
            Kind::Close => Ok(()),
            _ => Err(self.error("expected }}")),
        }
    }

    fn spaces(&mut self) {
        while *self.peek() == Kind::Space {
            self.at += 1;
        }
    }

    fn peek(&self) -> &Kind {
        self.tokens.get(self.at).map_or(&Kind::End, |token| &token.kind)
    }

    fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        self.at += 1;
        kind
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        // The line of the token that was taken last, or of the first token if none was taken.
        let line = self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last()).map_or(1, |token| token.line);
        Error::new(line, ErrorKind::Syntax, reason)
    }
}
