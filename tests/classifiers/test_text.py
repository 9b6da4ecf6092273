from classifiers.text import normalise


def test_compatibility_forms_invisible_characters_and_spaces():
    assert normalise("\uff28ello\u200b \u00adwor\u2060ld\n\n\t!  ") == "Hello world !"


def test_tag_characters_and_lone_surrogates_go():
    assert normalise("a\U000e0041\U000e0042b\ud800c") == "abc"


def test_plain_text_stays():
    assert normalise("What is an index fund?") == "What is an index fund?"
