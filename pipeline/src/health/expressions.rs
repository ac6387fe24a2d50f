//! CEL expressions about objects.
//!
//! Their evaluation has no limit of time and memory here. Expressions that a tenant wrote are evaluated only in a worker process
//! ([`super::apart`]).

use std::sync::{Arc, LazyLock};

use cel::{
    Context, Env, ExecutionError, ParseErrors, Program, Value as CelValue,
    common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo},
};
use serde_json::{Map, Value};

/// The fields of an object that are variables of their own. The object as a whole is `self`.
const FIELDS: [&str; 6] = ["apiVersion", "kind", "metadata", "spec", "status", "data"];
/// Names that stand for types or groups of functions.
const BUILT_IN: [&str; 11] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "optional", "string", "uint"];

/// What an expression is about, and so which names it may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum About {
    /// The names are `self`, which is an object, and the fields of this object: `status`, `spec` and so on.
    Object,
    /// `dep` is an object that a Sync, `self`, waits for.
    Dependency,
}

impl About {
    fn knows(self, name: &str) -> bool {
        match self {
            Self::Object => name == "self" || FIELDS.contains(&name),
            Self::Dependency => name == "self" || name == "dep",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Object => "use self (the object), or its fields status, spec, metadata, data, kind and apiVersion",
            Self::Dependency => "use dep (the object) or self (this Sync)",
        }
    }
}

/// An expression whose syntax and names are correct.
pub(super) struct Expression(Program);

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    env.add_extension(cel::extensions::strings).expect("none of its functions is declared yet");
    Arc::new(env)
});

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// A text that says what is wrong, and where.
    pub(super) fn read(text: &str, about: About) -> Result<Self, String> {
        let program = ENVIRONMENT.compile(text).map_err(|errors| first_error(&errors))?;
        let mut names = Names { about, info: program.source_info(), variables: Vec::new(), mistake: None };
        names.check(program.expression());
        let mistake = names.mistake.take();
        mistake.map_or(Ok(Self(program)), Err)
    }

    /// Whether it is true for these variables.
    ///
    /// # Errors
    /// A text that says why it is neither true nor false.
    pub(super) fn is_true(&self, variables: &Variables) -> Result<bool, String> {
        match self.0.execute(&variables.0) {
            Ok(CelValue::Bool(is_true)) => Ok(is_true),
            Ok(_) => Err("its result is neither true nor false".into()),
            Err(error) => Err(explained(&error)),
        }
    }
}

/// The variables of an expression.
pub(super) struct Variables(Context<'static, 'static>);

impl Variables {
    /// For [`About::Object`].
    pub(super) fn of_object(object: &Value) -> Result<Self, String> {
        let mut variables = Self::none();
        variables.add("self", object)?;
        let absent = Value::Object(Map::new());
        for name in FIELDS {
            variables.add(name, object.get(name).unwrap_or(&absent))?;
        }
        Ok(variables)
    }

    /// For [`About::Dependency`].
    pub(super) fn of_dependency(object: &Value, sync: &Value) -> Result<Self, String> {
        let mut variables = Self::none();
        variables.add("dep", object)?;
        variables.add("self", sync)?;
        Ok(variables)
    }

    fn none() -> Self {
        Self(Context::with_env(ENVIRONMENT.clone()))
    }

    fn add(&mut self, name: &str, value: &Value) -> Result<(), String> {
        self.0.add_variable(name, value).map_err(|_| format!("{name} has a value that expressions cannot use"))
    }
}

/// The first error of the parser, without the list of all tokens that the parser expected.
fn first_error(errors: &ParseErrors) -> String {
    let Some(error) = errors.errors.first() else { return "it cannot be read".into() };
    let (line, column) = error.pos;
    if error.msg.contains("Recursion") || error.msg.contains("recursion") {
        return "it is nested too deeply".into();
    }
    let said = error.msg.split(" expecting ").next().unwrap_or_default();
    let said = said.trim_start_matches("Syntax error: ");
    format!("line {line}, column {column}: {said}")
}

/// What is wrong, without the values that the library's own messages show.
fn explained(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => format!("there is no field '{name}'"),
        ExecutionError::UndeclaredReference(name) => format!("'{name}' is not known"),
        ExecutionError::NoSuchOverload(overload) => {
            format!("'{}' does not fit these types: {}", overload.function(), overload.argument_types().join(", "))
        }
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("the operator '{operator}' does not fit the types of its two sides")
        }
        ExecutionError::ValuesNotComparable(..) => "it compares values of different types".into(),
        ExecutionError::FunctionError { function, .. } => format!("'{function}' cannot use its arguments"),
        ExecutionError::IndexOutOfBounds(_) => "an index is outside of its list".into(),
        ExecutionError::UnexpectedType { got, want } => format!("there is a {got} where a {want} is needed"),
        _ => "it cannot be computed for this object".into(),
    }
}

/// Finds names in an expression that are not defined.
struct Names<'a> {
    about: About,
    info: &'a SourceInfo,
    /// The variables that the macros around the current part of the expression define: `x` in `list.all(x, …)`.
    variables: Vec<&'a str>,
    mistake: Option<String>,
}

impl<'a> Names<'a> {
    fn check(&mut self, of: &'a IdedExpr) {
        if self.mistake.is_some() {
            return;
        }
        match &of.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.trim_start_matches('.');
                let is_known = self.variables.contains(&name) || BUILT_IN.contains(&name) || self.about.knows(name);
                if !is_known {
                    self.mistake = Some(self.at(of, &format!("'{name}' is not known: {}", self.about.hint())));
                }
            }
            Expr::Call(call) => {
                let target = call.target.as_deref();
                let is_in_group = target.is_some_and(
                    |target| matches!(&target.expr, Expr::Ident(name) if BUILT_IN.contains(&name.as_str())),
                );
                if !is_in_group && !is_function(&call.func_name) {
                    self.mistake = Some(self.at(of, &format!("there is no function '{}'", call.func_name)));
                    return;
                }
                for part in target.into_iter().chain(&call.args) {
                    self.check(part);
                }
            }
            Expr::Comprehension(over) => {
                self.check(&over.iter_range);
                self.check(&over.accu_init);
                let names = [Some(&over.iter_var), over.iter_var2.as_ref(), Some(&over.accu_var)];
                let before = self.variables.len();
                self.variables.extend(names.into_iter().flatten().map(String::as_str));
                for part in [&over.loop_cond, &over.loop_step, &over.result] {
                    self.check(part);
                }
                self.variables.truncate(before);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.check_entry(&entry.expr)),
            Expr::Select(select) => self.check(&select.operand),
            Expr::Struct(of_type) => {
                self.mistake = Some(self.at(of, &format!("there is no type '{}'", of_type.type_name)));
            }
        }
    }

    fn check_entry(&mut self, entry: &'a EntryExpr) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.check(&entry.key);
                self.check(&entry.value);
            }
            EntryExpr::StructField(field) => self.check(&field.value),
        }
    }

    /// `mistake` with its column.
    fn at(&self, of: &IdedExpr, mistake: &str) -> String {
        let Some((start, _)) = self.info.offset_for(of.id) else { return mistake.to_owned() };
        let before: Vec<_> = self.info.source.chars().take(start as usize).collect();
        let line = 1 + before.iter().filter(|character| **character == '\n').count();
        let column = 1 + before.iter().rev().take_while(|character| **character != '\n').count();
        format!("line {line}, column {column}: {mistake}")
    }
}

/// Whether there is a function or method of this name. The library cannot list its functions, so a call of `name` is
/// tried.
fn is_function(name: &str) -> bool {
    let is_operator = !name.chars().all(char::is_alphanumeric);
    let knows = |call: String| match ENVIRONMENT.compile(&call) {
        Ok(program) => {
            let result = program.execute(&Context::with_env(ENVIRONMENT.clone()));
            !matches!(result, Err(ExecutionError::UndeclaredReference(unknown)) if *unknown == name)
        }
        // The name is known, but it is a macro that needs other arguments.
        Err(_) => true,
    };
    is_operator || knows(format!("{name}(null)")) || knows(format!("''.{name}()"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_object(text: &str, object: &Value) -> Result<bool, String> {
        Expression::read(text, About::Object)?.is_true(&Variables::of_object(object)?)
    }

    #[test]
    fn expressions_as_people_write_them() {
        let object = json!({"kind": "Widget", "metadata": {"generation": 2, "labels": {"a": "b"}}, "spec": {"replicas": 3},
            "status": {"phase": "Healthy", "ready": 3, "conditions": [{"type": "Ready", "status": "True"},
                {"type": "Synced", "status": "False", "reason": "Late"}]}});
        for (text, expected) in [
            ("status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')", true),
            ("status.conditions.exists(e, e.type == 'Synced' && e.status == 'True')", false),
            ("has(status.conditions) && status.phase == 'Healthy'", true),
            ("has(status.nothing)", false),
            ("status.?nothing.orValue('none') == 'none'", true),
            ("status.?conditions.orValue([]).exists(c, c.type == 'Ready')", true),
            ("self.status.ready >= self.spec.replicas", true),
            ("status.phase in ['Healthy', 'Done']", true),
            ("metadata.labels.a.startsWith('b') && kind == 'Widget'", true),
            ("status.phase.matches('^Heal')", true),
            ("status.phase.lowerAscii() == 'healthy' && size(status.conditions) == 2", true),
            ("int(status.ready) + 1 == 4", true),
            ("data.size() == 0", true),
            ("optional.of(1).hasValue()", true),
        ] {
            assert_eq!(of_object(text, &object), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_object_without_a_status_is_not_a_mistake() {
        assert_eq!(of_object("has(status.conditions)", &json!({})), Ok(false));
        assert_eq!(of_object("status.phase == 'a'", &json!({})), Err("there is no field 'phase'".into()));
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_without_values() {
        let read = |text: &str| Expression::read(text, About::Object).err().unwrap_or_default();
        assert!(read("status.conditions.exists(").starts_with("line 1, column 26: mismatched input"), "{}", read("a("));
        assert!(
            read("true &&\n statu.phase == ''")
                .starts_with("line 2, column 2: 'statu' is not known: use self (the object)")
        );
        assert!(read("status.conditions.exist(e, true)").contains("there is no function 'exist'"));
        assert!(read("e.b && [1].exists(e, true)").contains("'e' is not known"), "outside of its macro");
        assert!(read("Widget{a: 1} == 1").contains("there is no type 'Widget'"));
        // The parser's own limit for nesting needs a larger stack than the thread of a test has.
        let nested =
            || Expression::read(&format!("{}true{}", "(".repeat(500), ")".repeat(500)), About::Object).map(drop);
        let deep = std::thread::Builder::new().stack_size(super::super::apart::STACK).spawn(nested).unwrap();
        assert_eq!(deep.join().unwrap(), Err("it is nested too deeply".into()));
        let dep = |text: &str| Expression::read(text, About::Dependency).map(drop);
        assert_eq!(dep("dep.status.a == self.spec.path"), Ok(()));
        assert!(dep("status.a").unwrap_err().contains("use dep (the object)"));
        let object = json!({"status": {"a": "confidential", "n": 1, "list": [1]}});
        for text in [
            "status.a + 1 == 2",
            "status.a < 1",
            "status.list[5] == 1",
            "status.n / 0 == 1",
            "status.a",
            "int(status.a) == 1",
            "status.a.matches('(')",
            "status.a.n == 1",
        ] {
            let why = of_object(text, &object).unwrap_err();
            assert!(!why.contains("confidential") && !why.contains('(') && !why.is_empty(), "{text}: {why}");
        }
    }
}
