//! What cannot be changed in place: an immutable Secret, and the type of any.

use anyhow::Result;
use serde_json::json;

use super::side::{Side, data};

#[tokio::test]
async fn an_immutable_secret_stays_and_is_made_anew_when_it_is_deleted() -> Result<()> {
    let (ours, theirs) = (Side::ours("immutable").await?, Side::theirs("immutable").await?);
    for side in [&ours, &theirs] {
        side.put("db", &[("a", "one")], json!({"immutable": true})).await?;
        side.synced("db", "True").await?;
        let before = side.secret("db").await?;
        side.put("db", &[("a", "two")], json!({"immutable": true})).await?;
        side.synced("db", "False").await?;
        let event = side.event("db", "ErrUpdateFailed").await?;
        assert!(event.message.is_some_and(|message| message.contains("immutable")));
        assert_eq!(side.secret("db").await?["data"], before["data"]);
        assert_eq!(side.secret("db").await?["metadata"]["uid"], before["metadata"]["uid"]);
        side.delete_secret("db").await?;
        side.has("db", &[("a", "two")]).await?;
        side.synced("db", "True").await?;
        assert_eq!(side.secret("db").await?["immutable"], true);
    }
    // An immutable Secret may still get other labels.
    for side in [&ours, &theirs] {
        side.put("db", &[("a", "two")], json!({"immutable": true, "metadata": {"labels": {"team": "b"}}})).await?;
        side.synced("db", "True").await?;
        assert_eq!(side.secret("db").await?["metadata"]["labels"], json!({"team": "b"}));
    }
    Ok(())
}

#[tokio::test]
async fn a_new_type_is_refused_and_the_message_says_what_to_do() -> Result<()> {
    let (ours, theirs) = (Side::ours("new-type").await?, Side::theirs("new-type").await?);
    for side in [&ours, &theirs] {
        side.put("db", &[("a", "one")], json!({"type": "example.com/one"})).await?;
        side.synced("db", "True").await?;
        side.put("db", &[("a", "two")], json!({"type": "example.com/two"})).await?;
        side.synced("db", "False").await?;
        side.event("db", "ErrUpdateFailed").await?;
        let secret = side.secret("db").await?;
        assert_eq!((&secret["type"], &secret["data"]), (&json!("example.com/one"), &data(&[("a", "one")])));
    }
    let message = ours.message("db", "False").await?;
    assert!(message.contains("delete the Secret, and it is made anew"), "{message}");
    ours.delete_secret("db").await?;
    ours.has("db", &[("a", "two")]).await?;
    ours.synced("db", "True").await?;
    assert_eq!(ours.secret("db").await?["type"], "example.com/two");
    Ok(())
}
