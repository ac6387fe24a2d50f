//! Evaluates what tenants wrote: `spec.healthChecks` and `readyExpr`. This happens only in a worker process, because an
//! expression may take any amount of time and memory.
//!
//! The process gets a [`Question`] and gives an [`Answer`], both as JSON.

use crds::{HealthCheck, Sync};
use manifests::ObjectId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Health, description,
    expressions::{About, Expression, Variables},
};

/// The function of a task: from the bytes of the request to those of the answer.
type Work = fn(&[u8]) -> Result<Vec<u8>, String>;

/// The name and the function of the task with which the controller starts its own program as a worker process.
pub const TASK: (&str, Work) = ("expressions", serve);

/// The stack of the thread that evaluates. The parser nests 96 deep at most, and its frames are large without optimisation.
pub(super) const STACK: usize = 32 << 20;

/// What the process is asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Question {
    /// Which of these expressions are not correct?
    Check(Vec<Text>),
    /// Is this object healthy?
    Health {
        /// The expressions.
        check: HealthCheck,
        /// The object.
        object: Value,
    },
    /// Is the `readyExpr` of a dependency true for this object?
    Ready {
        /// The expression.
        expression: String,
        /// The object.
        object: Value,
        /// The Sync, without its status.
        sync: Value,
    },
}

/// What the process answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    /// The first expression that is not correct, and why. `None` if all are correct.
    Checked(Option<String>),
    /// The health of the object.
    Health(Health),
}

/// An expression of a Sync.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Text {
    /// Where it is in the Sync, for example `spec.healthChecks[0].current`.
    pub place: String,
    /// The expression.
    pub text: String,
    /// Whether it is the `readyExpr` of a dependency, and not from `spec.healthChecks`.
    pub is_about_dependency: bool,
}

/// All expressions of a Sync.
pub fn texts(sync: &Sync) -> Vec<Text> {
    let mut texts = Vec::new();
    for (number, check) in sync.spec.health_checks.iter().enumerate() {
        let all =
            [("inProgress", &check.in_progress), ("failed", &check.failed), ("current", &Some(check.current.clone()))];
        for (name, text) in all.map(|(name, text)| (name, text.clone())) {
            let place = format!("spec.healthChecks[{number}].{name}");
            texts.extend(text.map(|text| Text { place, text, is_about_dependency: false }));
        }
    }
    for (number, dependency) in sync.spec.depends_on.iter().enumerate() {
        let place = format!("spec.dependsOn[{number}].readyExpr");
        texts.extend(dependency.ready_expr.clone().map(|text| Text { place, text, is_about_dependency: true }));
    }
    texts
}

/// The expressions of a Sync that are not correct: the place of each, and what is wrong. The expressions are only read, and
/// not evaluated.
pub fn mistakes(sync: &Sync) -> Vec<(String, String)> {
    let texts = texts(sync);
    if texts.is_empty() {
        return Vec::new();
    }
    let read = move || texts.iter().filter_map(|text| Some((text.place.clone(), mistake(text)?))).collect();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(read);
    let found = thread
        .map_err(|error| error.to_string())
        .and_then(|thread| thread.join().map_err(|_| "the expressions of the Sync cannot be read".to_owned()));
    found.unwrap_or_else(|why| vec![("spec".to_owned(), why)])
}

fn mistake(text: &Text) -> Option<String> {
    let about = if text.is_about_dependency { About::Dependency } else { About::Object };
    Expression::read(&text.text, about).err()
}

/// The check that `sync` has for objects of this kind, and the path of the check in the Sync. There is never a check
/// for Secrets, because their values must not come into a message.
pub fn own_check<'s>(sync: &'s Sync, id: &ObjectId) -> Option<(String, &'s HealthCheck)> {
    let group = |api_version: &'s str| api_version.split_once('/').map_or("", |(group, _)| group);
    let mut checks = sync.spec.health_checks.iter().enumerate();
    let found = checks.find(|(_, check)| check.kind == id.kind && group(&check.api_version) == id.group);
    found.filter(|_| !id.is_secret()).map(|(number, check)| (format!("spec.healthChecks[{number}]"), check))
}

/// What the worker process does: it answers one question.
fn serve(request: &[u8]) -> Result<Vec<u8>, String> {
    let question: Question = read(request)?;
    let work = move || answer(&question);
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).map_err(|error| error.to_string())?;
    let answer = thread.join().map_err(|_| "an expression could not be evaluated".to_owned())?;
    serde_json::to_vec(&answer).map_err(|error| error.to_string())
}

/// Reads the answer of the process.
///
/// # Errors
/// The bytes are not an answer.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("line {} column {}", error.line(), error.column()))
}

fn answer(question: &Question) -> Answer {
    match question {
        Question::Check(texts) => Answer::Checked(
            texts.iter().find_map(|text| mistake(text).map(|mistake| format!("{}: {mistake}", text.place))),
        ),
        Question::Health { check, object } => Answer::Health(health(check, object)),
        Question::Ready { expression, object, sync } => Answer::Health(ready(expression, object, sync)),
    }
}

fn ready(expression: &str, object: &Value, sync: &Value) -> Health {
    let is_true = Expression::read(expression, About::Dependency)
        .and_then(|expression| expression.is_true(&Variables::of_dependency(object, sync)?));
    match is_true {
        Ok(true) => Health::Current,
        Ok(false) => Health::InProgress("its readyExpr is not true".into()),
        Err(why) => Health::InProgress(format!("its readyExpr cannot be evaluated: {why}")),
    }
}

/// The health of an object by these expressions.
fn health(check: &HealthCheck, object: &Value) -> Health {
    match Rule::read(&check.current, check.in_progress.as_deref(), check.failed.as_deref()) {
        Ok(rule) => rule.health(object),
        Err(mistake) => Health::InProgress(mistake),
    }
}

/// Expressions that say whether an object is healthy.
pub(super) struct Rule {
    /// With their names, in the order in which they are tried.
    expressions: Vec<(&'static str, Expression)>,
}

impl Rule {
    /// Reads the expressions.
    ///
    /// # Errors
    /// One is not correct.
    pub(super) fn read(current: &str, in_progress: Option<&str>, failed: Option<&str>) -> Result<Self, String> {
        let all = [("inProgress", in_progress), ("failed", failed), ("current", Some(current))];
        let given = all.into_iter().filter_map(|(name, text)| Some((name, text?)));
        let read = given.map(|(name, text)| {
            let expression = Expression::read(text, About::Object).map_err(|mistake| format!("{name}: {mistake}"))?;
            Ok((name, expression))
        });
        Ok(Self { expressions: read.collect::<Result<_, String>>()? })
    }

    /// The health of an object.
    pub(super) fn health(&self, object: &Value) -> Health {
        let variables = match Variables::of_object(object) {
            Ok(variables) => variables,
            Err(why) => return Health::InProgress(why),
        };
        for (name, expression) in &self.expressions {
            match expression.is_true(&variables) {
                Ok(false) => {}
                Ok(true) if *name == "current" => return Health::Current,
                Ok(true) => {
                    let why = description(object).unwrap_or_else(|| format!("the expression `{name}` is true"));
                    return if *name == "failed" { Health::Failed(why) } else { Health::InProgress(why) };
                }
                Err(why) => return Health::InProgress(format!("its expression `{name}` cannot be evaluated: {why}")),
            }
        }
        Health::InProgress(description(object).unwrap_or_else(|| "the expression `current` is not true".into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(question: &Question) -> Answer {
        read(&serve(&serde_json::to_vec(question).unwrap()).unwrap()).unwrap()
    }

    fn widgets() -> HealthCheck {
        let phase = |phase: &str| Some(format!("status.phase == '{phase}'"));
        HealthCheck {
            api_version: "example.com/v1".into(),
            kind: "Widget".into(),
            current: phase("Ready").unwrap_or_default(),
            in_progress: phase("Starting"),
            failed: phase("Broken"),
        }
    }

    #[test]
    fn the_expressions_are_tried_in_order() {
        let health = |status: Value| asked(&Question::Health { check: widgets(), object: json!({"status": status}) });
        let waiting = |why: &str| Answer::Health(Health::InProgress(why.into()));
        assert_eq!(health(json!({"phase": "Ready"})), Answer::Health(Health::Current));
        assert_eq!(health(json!({"phase": "Starting", "message": "soon"})), waiting("it is Starting: soon"));
        assert_eq!(health(json!({"phase": "Broken"})), Answer::Health(Health::Failed("it is Broken".into())));
        assert_eq!(health(json!({"phase": "Other"})), waiting("it is Other"));
        assert_eq!(
            health(json!({})),
            waiting("its expression `inProgress` cannot be evaluated: there is no field 'phase'")
        );
    }

    #[test]
    fn the_first_mistake_of_a_sync_is_told_with_its_place() {
        let mut check = serde_json::to_value(widgets()).unwrap();
        check["failed"] = json!("statu.phase == 'Broken'");
        let spec = json!({"repository": {"name": "repo"}, "path": "./", "healthChecks": [widgets(), check],
            "dependsOn": [{"name": "a"}, {"name": "b", "readyExpr": "dep.status.x == self.spec.path"}]});
        let sync: Sync = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let Answer::Checked(Some(mistake)) = asked(&Question::Check(texts(&sync))) else { panic!("it is not told") };
        assert!(
            mistake.starts_with("spec.healthChecks[1].failed: line 1, column 1: 'statu' is not known"),
            "{mistake}"
        );
        let last = texts(&sync).pop().unwrap();
        assert_eq!((last.place.as_str(), last.is_about_dependency), ("spec.dependsOn[1].readyExpr", true));
        assert_eq!(asked(&Question::Check(vec![last])), Answer::Checked(None));
    }

    #[test]
    fn a_dependency_is_ready_when_its_expression_is_true() {
        let ready = |expression: &str| {
            let (object, sync) = (json!({"status": {"v": "2"}}), json!({"metadata": {"labels": {"v": "2"}}}));
            asked(&Question::Ready { expression: expression.into(), object, sync })
        };
        assert_eq!(ready("dep.status.v == self.metadata.labels.v"), Answer::Health(Health::Current));
        let Answer::Health(Health::InProgress(why)) = ready("dep.status.w == '1'") else { panic!("it is ready") };
        assert_eq!(why, "its readyExpr cannot be evaluated: there is no field 'w'");
    }

    #[test]
    fn a_check_is_for_a_kind_in_every_version_and_never_for_a_secret() {
        let secret = HealthCheck {
            api_version: "v1".into(),
            kind: "Secret".into(),
            current: "true".into(),
            ..HealthCheck::default()
        };
        let spec = json!({"repository": {"name": "repo"}, "path": "./", "healthChecks": [secret, widgets()]});
        let sync: Sync = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let id = |group: &str, kind: &str| ObjectId {
            group: group.into(),
            kind: kind.into(),
            namespace: None,
            name: "a".into(),
        };
        let place = |group: &str, kind: &str| own_check(&sync, &id(group, kind)).map(|(place, _)| place);
        assert_eq!(place("example.com", "Widget").as_deref(), Some("spec.healthChecks[1]"));
        assert_eq!((place("", "Widget"), place("", "Secret")), (None, None));
    }
}
