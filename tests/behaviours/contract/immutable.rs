//! Things that cannot be changed in place: an immutable Secret, and the type of any Secret.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    side::data,
    whole::{both, same_event, same_secret, same_status},
};

#[tokio::test]
async fn an_immutable_secret_stays_and_is_made_anew_when_it_is_deleted() -> Result<()> {
    let sides = both("immutable").await?;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({"immutable": true})).await?;
        side.synced("db", "True").await?;
        let before = side.secret("db").await?;
        side.put("db", &[("a", "two")], json!({"immutable": true})).await?;
        side.synced("db", "False").await?;
        let after = side.secret("db").await?;
        assert_eq!((&after["data"], &after["metadata"]["uid"]), (&before["data"], &before["metadata"]["uid"]));
    }
    same_secret(&sides, "db").await?;
    same_status(&sides, "db", "False").await?;
    for message in same_event(&sides, "db", "ErrUpdateFailed").await? {
        ensure!(message.contains("the target Secret is immutable"), "{message}");
    }

    for side in &sides {
        side.delete_secret("db").await?;
        side.has("db", &[("a", "two")]).await?;
    }
    same_status(&sides, "db", "True").await?;
    assert_eq!(same_secret(&sides, "db").await?["immutable"], true);
    same_event(&sides, "db", "Unsealed").await?;

    // The labels of an immutable Secret can still be changed.
    for side in &sides {
        side.put("db", &[("a", "two")], json!({"immutable": true, "metadata": {"labels": {"team": "b"}}})).await?;
    }
    same_status(&sides, "db", "True").await?;
    assert_eq!(same_secret(&sides, "db").await?["metadata"]["labels"], json!({"team": "b"}));
    Ok(())
}

#[tokio::test]
async fn a_new_type_is_refused_and_the_message_says_what_to_do() -> Result<()> {
    let sides = both("new-type").await?;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({"type": "example.com/one"})).await?;
        side.synced("db", "True").await?;
        side.put("db", &[("a", "two")], json!({"type": "example.com/two"})).await?;
    }
    let [message, _] = same_status(&sides, "db", "False").await?;
    ensure!(message.contains("delete the Secret, and it is made again"), "{message}");
    same_event(&sides, "db", "ErrUpdateFailed").await?;
    let secret = same_secret(&sides, "db").await?;
    assert_eq!((&secret["type"], &secret["data"]), (&json!("example.com/one"), &data(&[("a", "one")])));

    for side in &sides {
        side.delete_secret("db").await?;
        side.has("db", &[("a", "two")]).await?;
    }
    same_status(&sides, "db", "True").await?;
    assert_eq!(same_secret(&sides, "db").await?["type"], "example.com/two");
    same_event(&sides, "db", "Unsealed").await.map(drop)
}
