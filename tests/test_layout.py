from collections import Counter

from diffcontrol.layout import Layout, drawn, joint, of_text


def test_a_text_that_ends_fixes_start_end_and_what_follows():
    layout = of_text({1: "a"}, 3, 6)
    assert layout.words == {0: "START", 1: "a", 3: "END", 4: "PAD", 5: "PAD"} and layout.end == 3


def test_layouts_of_several_tasks_agree_or_are_left_out():
    lengths = [of_text({}, end, 6) for end in (2, 3, 4)]
    word = [Layout({1: "a"}), Layout({3: "b"})]
    found = joint([lengths, (), word])
    assert [(layout.words.get(1), layout.words.get(3), layout.end) for layout in found] == [
        ("a", "PAD", 2), ("a", "END", 3), ("a", None, 4), (None, "b", 4)
    ]  # fmt: skip
    assert joint([[Layout({1: "a"})], [Layout({1: "b"})]]) == []
    assert joint([[of_text({}, 4, 6)], [Layout({2: "PAD"})]]) == []  # a hole within a text
    assert joint([(), ()]) == [Layout()]


def test_layouts_are_drawn_by_weight():
    found = joint([[Layout({1: "a"}, 3), Layout({1: "b"}, 1)], [Layout({2: "c"}, 2)]])
    count = Counter(drawn(found, i / 4000).words[1] for i in range(4000))
    assert abs(count["a"] / 4000 - 0.75) < 0.001
