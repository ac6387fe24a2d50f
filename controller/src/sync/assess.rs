//! The health of objects for a Sync: by the Sync's own `healthChecks`, or else by the built-in rules. Also checks that
//! the expressions of the Sync are correct.

use crds::Dependency;
use manifests::ObjectId;
use pipeline::{
    Stage, StageError,
    health::{
        self, Health,
        apart::{Answer, Question, own_check, texts},
    },
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Pass, Record, poll_health::READS_AGAIN};
use crate::{admission::Lease, expressions::Unanswered};

/// An expression of the Sync is not correct.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ExpressionError {
    /// Its syntax or a name in it is wrong.
    #[error("{0}")]
    Wrong(String),
    /// It could not be checked.
    #[error("the expressions of the Sync could not be checked: {0}")]
    NotChecked(String),
}

impl StageError for ExpressionError {
    const STAGE: Stage = Stage::Source;

    fn reason(&self) -> &'static str {
        "InvalidExpression"
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Wrong(_))
    }
}

/// The turn to evaluate an object, which is taken before the object is read. There is none if no expression is needed.
pub(super) type Turn = Option<Lease>;

impl Pass<'_> {
    /// Whether the Sync's `healthChecks` changed since the health of its objects was found out. Puts the new ones into
    /// the record.
    pub(super) fn checks_anew(&self, record: &mut Record) -> bool {
        let now = &self.sync.spec.health_checks;
        let is_anew = record.health_checks != *now;
        if is_anew {
            record.health_checks.clone_from(now);
        }
        is_anew
    }

    /// Whether all expressions of the Sync are correct. They are checked once for each generation of the Sync.
    pub(super) async fn check_expressions(&self, record: &mut Record) -> Result<(), ExpressionError> {
        let generation = self.sync.metadata.generation;
        let texts = texts(self.sync);
        if texts.is_empty() || record.checked_generation == generation {
            return Ok(());
        }
        let expressions = &self.ctx.expressions;
        let turn = expressions.turn(&self.key.namespace).await;
        let answer = expressions.ask(self.key, generation, Question::Check(texts.clone()), &turn).await;
        let checked = match answer {
            Ok(Answer::Checked(mistake)) => mistake.map_or(Ok(()), |mistake| Err(ExpressionError::Wrong(mistake))),
            Ok(Answer::Health(_)) => Err(ExpressionError::NotChecked("the worker answered another question".into())),
            Err(Unanswered::Failed(why)) => Err(ExpressionError::NotChecked(why)),
            Err(Unanswered::Overran { why, .. }) => {
                drop(turn);
                Err(self.which_overruns(texts).await.unwrap_or_else(|| {
                    ExpressionError::Wrong(format!("its expressions are too many, or too large: {why}"))
                }))
            }
        };
        if checked.is_ok() {
            record.checked_generation = generation;
        }
        checked
    }

    /// Finds the expression that the evaluating process could not answer within its limits of time and memory. Each
    /// expression needs a new turn, so that the Syncs of other namespaces do not wait for all of them.
    async fn which_overruns(&self, texts: Vec<health::apart::Text>) -> Option<ExpressionError> {
        let expressions = &self.ctx.expressions;
        for text in texts {
            let place = text.place.clone();
            let question = Question::Check(vec![text]);
            let turn = expressions.turn(&self.key.namespace).await;
            let answer = expressions.ask(self.key, self.sync.metadata.generation, question, &turn).await;
            if let Err(Unanswered::Overran { why, .. }) = answer {
                return Some(ExpressionError::Wrong(format!("{place} cannot be read: {why}; make it simpler")));
            }
        }
        None
    }

    /// Waits for a turn, if the Sync has expressions for this object.
    ///
    /// # Errors
    /// Expressions of the Sync took too much time or memory a moment ago, so none is evaluated now. The error is the
    /// health of the object.
    pub(super) async fn turn_for(&self, id: &ObjectId) -> Result<Turn, Health> {
        let Some((place, _)) = own_check(self.sync, id) else { return Ok(None) };
        self.turn(&place).await.map(Some)
    }

    /// Like [`Pass::turn_for`], for the object of a dependency, which may have an expression of its own.
    pub(super) async fn turn_for_dependency(&self, dependency: &Dependency, id: &ObjectId) -> Result<Turn, Health> {
        match dependency.ready_expr {
            Some(_) => self.turn("its readyExpr").await.map(Some),
            None => self.turn_for(id).await,
        }
    }

    async fn turn(&self, place: &str) -> Result<Lease, Health> {
        let expressions = &self.ctx.expressions;
        if let Some(pauses) = expressions.pauses(self.key, self.sync.metadata.generation) {
            return Err(self.unanswered(&pauses, place));
        }
        Ok(expressions.turn(&self.key.namespace).await)
    }

    /// The health of `object`, which was read after `turn` was taken.
    pub(super) async fn assess(&self, id: &ObjectId, object: Value, turn: &Turn) -> Health {
        let (Some(turn), Some((place, check))) = (turn, own_check(self.sync, id)) else {
            return health::assess(id, &object);
        };
        if let Some(health) = health::before_its_rule(id, &object) {
            return health;
        }
        let question = Question::Health { check: check.clone(), object };
        self.ask(question, &place, turn).await
    }

    /// The health of `object`, which a dependency names and which was read after `turn` was taken.
    pub(super) async fn assess_dependency(
        &self,
        dependency: &Dependency,
        id: &ObjectId,
        object: Value,
        turn: &Turn,
    ) -> Health {
        let (Some(turn), Some(expression)) = (turn, &dependency.ready_expr) else {
            return self.assess(id, object, turn).await;
        };
        let metadata = &self.sync.metadata;
        let sync = json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "spec": self.sync.spec,
            "metadata": {"name": metadata.name, "namespace": metadata.namespace, "generation": metadata.generation,
                "labels": metadata.labels, "annotations": metadata.annotations},
        });
        let question = Question::Ready { expression: expression.clone(), object, sync };
        self.ask(question, "its readyExpr", turn).await
    }

    async fn ask(&self, question: Question, place: &str, turn: &Lease) -> Health {
        match self.ctx.expressions.ask(self.key, self.sync.metadata.generation, question, turn).await {
            Ok(Answer::Health(health)) => health,
            Ok(Answer::Checked(_)) => Health::InProgress(format!("{place} has another answer")),
            Err(unanswered) => self.unanswered(&unanswered, place),
        }
    }

    /// The health of an object for which there is no answer. Also puts the Sync into the queue for the time when there
    /// may be one.
    fn unanswered(&self, unanswered: &Unanswered, place: &str) -> Health {
        self.come_back(Some(match unanswered {
            Unanswered::Overran { until, .. } => *until,
            Unanswered::Failed(_) => Instant::now() + READS_AGAIN,
        }));
        unanswered.as_health(place)
    }
}
