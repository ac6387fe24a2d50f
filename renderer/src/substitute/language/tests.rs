use proptest::prelude::*;

use super::*;

const WORD: &str = "gitsealvalue00112233445566778899aabbccddeeff";

fn known(name: &str) -> Option<Known<'static>> {
    Some(match name {
        "web" => Known::Plain("Shop.example.com"),
        "n" => Known::Plain("3"),
        "empty" => Known::Plain(""),
        "path" => Known::Plain("/a/b.tar.gz"),
        "umlaut" => Known::Plain("äöü"),
        "text" => Known::Plain("${n} }"),
        "password" => Known::Sealed(WORD),
        _ => return None,
    })
}

fn expanded(text: &str) -> Result<String, Mistake> {
    expand(text, &known, &mut Budget::new(1 << 20)).map(|expanded| expanded.text)
}

#[test]
fn each_form_has_its_value() {
    for (text, value) in [
        ("", ""),
        ("no variable $n $ $$ {n} } $(n)", "no variable $n $ $$ {n} } $(n)"),
        ("${n}", "3"),
        ("a${n}b${web}c", "a3bShop.example.comc"),
        ("$${n} ${n}", "${n} 3"),
        ("$$${n}", "$${n}"),
        ("$${a=${n}}", "${a=3}"),
        ("$$${n}${n}", "$${n}3"),
        // A value is not read again.
        ("${text}", "${n} }"),
        ("${empty}", ""),
        ("${none:=5}", "5"),
        ("${none:-5}", "5"),
        ("${none=5}", "5"),
        ("${none:=}", ""),
        ("${n:=5}${n:-5}${n=5}", "333"),
        ("${empty:=5}${empty:-6}[${empty=7}]", "56[]"),
        ("${none:=a ${n} ${other:=b}}", "a 3 b"),
        ("${none:=https://a/b?c=d&e=#f}", "https://a/b?c=d&e=#f"),
        ("${none:=\\d}", "\\d"),
        ("${none:=$5 $${n}", "$5 ${n"),
        // A default that is not needed need not have a value.
        ("${n:=${none}}", "3"),
        ("${#web} ${#empty} ${#umlaut}", "16 0 3"),
        ("${web:5} ${web:5:7} ${web:0:4} ${web:90} ${web:12:90} ${umlaut:1:1}", "example.com example Shop  .com ö"),
        (
            "${web,} ${web,,} ${web^} ${web^^} ${umlaut^}",
            "shop.example.com shop.example.com Shop.example.com SHOP.EXAMPLE.COM Äöü",
        ),
        ("${empty^}${empty,,}", ""),
        ("${web/./-} ${web//./-} ${web/gone/-}", "Shop-example.com Shop-example-com Shop.example.com"),
        (
            "${web/#Shop/S} ${web/%com/org} ${web/#com/S} ${web/%Shop/S}",
            "S.example.com Shop.example.org Shop.example.com Shop.example.com",
        ),
        ("${web/#/p-} ${web/%/-s} ${web//./}", "p-Shop.example.com Shop.example.com-s Shopexamplecom"),
        (r"${path//\//-} ${n/3/a\}b} ${n/3/\\}", r"-a-b.tar.gz a}b \"),
        ("${web/${n:=x}/y} ${n/${n}/${web:0:4}}", "Shop.example.com Shop"),
        ("${path#*/} ${path##*/} ${path%.*} ${path%%.*}", "a/b.tar.gz b.tar.gz /a/b.tar /a/b"),
        ("${path#x} ${path%x*} ${path##*} ${path#*} [${path%%*}]", "/a/b.tar.gz /a/b.tar.gz  /a/b.tar.gz []"),
        ("${path#/?/} ${path%.??} ${umlaut#?} ${umlaut%?}", "b.tar.gz /a/b.tar öü äö"),
        ("${web##*.*.} ${web#S*.*e} ${web%e*m}", "com xample.com Shop.exampl"),
    ] {
        assert_eq!(expanded(text).as_deref(), Ok(value), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("${none}", "the variable none is not set"),
        ("${#none}${n}", "the variable none is not set"),
        ("${none^^}", "the variable none is not set"),
        ("${none:0:2}", "the variable none is not set"),
        ("${none/a/b}", "the variable none is not set"),
        ("${none%a}", "the variable none is not set"),
        ("${none:=${other}}", "the variable other is not set"),
        ("a ${n", "`${n` is not understood: a closing brace } is missing"),
        ("${none:=a", "a closing brace } is missing"),
        ("${n/3", "a closing brace } is missing"),
        ("${}", "write $${ for the text ${"),
        ("${1}", "write $${ for the text ${"),
        ("${ n }", "write $${ for the text ${"),
        ("${#}", "write $${ for the text ${"),
        ("${my-name}", "names of variables have only letters, digits and _; a default is written ${name:=default}"),
        ("${my.name}", "names of variables have only letters, digits and _"),
        ("${n!}", "one of the operators"),
        ("${n:+a}", "the operators :+ and :? are not supported"),
        ("${n:?a}", "the operators :+ and :? are not supported"),
        ("${n:a}", "after ':' must come a number"),
        ("${n:0:a}", "after the second ':' must come a number"),
        ("${n:99999999999999999999}", "after ':' must come a number"),
    ] {
        let told = expanded(text).expect_err(text).to_string();
        assert!(told.contains(part), "{text}: {told}");
    }
    let nested = |depth: usize| "${none:=".repeat(depth) + &"}".repeat(depth);
    assert_eq!(expanded(&nested(DEPTH)).as_deref(), Ok(""));
    assert!(expanded(&nested(100_000)).unwrap_err().to_string().contains("inside each other"));
    let long = expanded(&format!("${{n {}", "x".repeat(1000))).unwrap_err().to_string();
    assert!(long.contains('…') && long.len() < 200, "{long}");
}

#[test]
fn a_sealed_value_stays_as_it_is() {
    for (text, sealed) in
        [("${password}", true), ("a ${none:=${password}} b", true), ("${password:=a}", true), ("${n}", false)]
    {
        let expanded = expand(text, &known, &mut Budget::new(1 << 20)).unwrap();
        assert_eq!(expanded.sealed.as_deref(), sealed.then_some("password"), "{text}");
        assert_eq!(expanded.text.contains(WORD), sealed, "{text}");
    }
    for text in
        ["${#password}", "${password^^}", "${password:0:3}", "${password/a/b}", "${password%a}", "${n/3/${password}}"]
    {
        let told = expanded(text).unwrap_err();
        assert_eq!(told, Mistake::SealedChanged("password".into()), "{text}");
        assert!(told.to_string().contains("as ${password} or with a default"), "{told}");
    }
}

#[test]
fn a_field_that_is_one_variable_is_known() {
    for (text, is_one, had) in
        [("${n}", true, true), ("${none:=${n}}", true, true), ("${n}0", false, true), ("$${n}", false, false)]
    {
        let expanded = expand(text, &known, &mut Budget::new(1 << 20)).unwrap();
        assert_eq!((expanded.is_one_variable, expanded.had_variable), (is_one, had), "{text}");
    }
}

#[test]
fn the_result_and_the_work_are_bounded() {
    let value = "a".repeat(1 << 20);
    let known = |_: &str| Some(Known::Plain(value.as_str()));
    let takes = |text: &str, left: u64| expand(text, &known, &mut Budget::new(left));
    assert_eq!(takes("${a}${a}${a}${a}", 1 << 30), Err(Mistake::TooLong));
    assert_eq!(takes("${a//a/aaaaaaaa}", 1 << 30), Err(Mistake::TooLong));
    assert_eq!(takes(&"${#a}".repeat(1000), 1 << 28), Err(Mistake::TooLong));
    assert_eq!(takes(&format!("${{a%{}b}}", "*a".repeat(1000)), 1 << 28), Err(Mistake::TooLong));
    assert!(takes("${a}${a}", 1 << 28).is_ok());
}

/// Whether a pattern fits a whole text, in the simplest way.
fn fits(text: &[char], pattern: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skipped| fits(&text[skipped..], rest)),
        Some((one, rest)) => {
            text.split_first().is_some_and(|(first, others)| (*one == '?' || one == first) && fits(others, rest))
        }
    }
}

proptest! {
    #[test]
    fn hostile_texts_do_no_harm(text in r"(\$|\{|\}|\$\{|n|[:=#%/^,\\*-]|[a-zä0-9 ])*") {
        let _ = expanded(&text);
    }

    #[test]
    fn a_text_without_a_brace_after_a_dollar_stays(text in "[^{]*") {
        prop_assert_eq!(expanded(&text), Ok(text));
    }

    #[test]
    fn an_escaped_text_is_the_text(text in r"[a-z$\{\}:= ]*") {
        let escaped = text.replace("${", "$${");
        // Three dollars and a brace are read from the left, so only the last two are escaped.
        prop_assert_eq!(expanded(&escaped), Ok(text));
    }

    #[test]
    fn a_value_is_put_in_as_it_is(value in "\\PC*", before in "[a-z ]*", after in "[a-z ]*") {
        let known = |_: &str| Some(Known::Plain(value.as_str()));
        let result = expand(&format!("{before}${{v}}{after}"), &known, &mut Budget::new(1 << 20));
        prop_assert_eq!(result.map(|expanded| expanded.text), Ok(format!("{before}{value}{after}")));
    }

    #[test]
    fn patterns_fit_as_in_a_shell(text in "[abä]{0,7}", pattern in "[ab?*]{0,5}") {
        let (chars, parts): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
        let prefixes: Vec<_> = (0..=chars.len()).filter(|end| fits(&chars[..*end], &parts)).collect();
        let bytes = |count: Option<&usize>| chars[..count.copied().unwrap_or(0)].iter().map(|one| one.len_utf8()).sum::<usize>();
        prop_assert_eq!(matching(text.chars(), &parts, true), bytes(prefixes.last()));
        prop_assert_eq!(matching(text.chars(), &parts, false), bytes(prefixes.first()));
    }
}
