//! Lists in a result.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

/// The most objects of one result. More do not fit into the inventory of a Sync.
pub(crate) const OBJECTS: usize = 50_000;

/// Reads a list of at most `MOST` items. An item takes more memory than its JSON. So without a limit, a process that lies
/// could take much memory with few bytes.
pub(crate) fn list<'de, D, T, const MOST: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(item) = items.next_element()? {
                if all.len() == MOST {
                    return Err(A::Error::custom(format!("a list has more than {MOST} items")));
                }
                all.push(item);
            }
            Ok(all)
        }
    }

    from.deserialize_seq(List::<T, MOST>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::OBJECTS;
    use crate::{RenderedChart, RenderedKustomization};

    #[test]
    fn a_result_has_no_endless_lists() {
        let lists = |item: &str, count: usize| vec![item; count].join(",");
        let chart =
            |text: &str| serde_json::from_str::<RenderedChart>(text).map(drop).map_err(|error| error.to_string());
        let objects = |count: usize| format!("{{\"objects\":[{}]}}", lists("{\"yaml\":\"\"}", count));
        assert_eq!(chart(&objects(OBJECTS)), Ok(()));
        let hook = |field: &str| {
            let texts = lists("\"\"", 2000);
            format!("{{\"objects\":[{{\"yaml\":\"\",\"hook\":{{\"events\":[],\"{field}\":[{texts}]}}}}]}}")
        };
        let too_many = [
            objects(OBJECTS + 1),
            format!("{{\"warnings\":[{}]}}", lists("\"\"", 2000)),
            format!("{{\"nondeterministic\":[{}]}}", lists("\"\"", 2000)),
            format!("{{\"lookups\":[{}]}}", lists("{\"apiVersion\":\"\",\"kind\":\"\"}", 2000)),
            hook("deletePolicies"),
            hook("events").replace("\"events\":[],", ""),
        ];
        for text in too_many {
            let told = chart(&text).unwrap_err();
            assert!(told.contains("a list has more than"), "{told}: {text:.80}");
        }
        assert!(serde_json::from_str::<RenderedKustomization>(&objects(OBJECTS + 1)).is_err());
    }
}
