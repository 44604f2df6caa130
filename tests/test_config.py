"""The configuration: everything wrong is said at once, and what is right survives a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas_ray.config import ProtocolConfig, RunConfig
from nas_ray.config_file import ConfigError, dump_config, load_config


def mistakes(*overrides: str, source: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    return caught.value.mistakes


def test_defaults_are_valid_and_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(load_config(None)))
    assert load_config(path) == RunConfig()


def test_override_reaches_nested_keys_with_yaml_types() -> None:
    config = load_config(
        None,
        [
            "protocol.lr=0.05",
            "novelty.graph=false",
            "selection.quantile=null",
            "selection.threshold=0.4",
            "protocol.augmentation=[flip]",
        ],
    )
    assert config.protocol.lr == 0.05
    assert config.novelty.graph is False
    assert config.selection.quantile is None
    assert config.protocol.augmentation == ("flip",)


def test_every_mistake_is_listed_at_once() -> None:
    found = "\n".join(mistakes("protocol.lr=-1", "cycles=many", "protocol.lrr=3", "nonsense", "seed.x=1"))
    for part in ("protocol.lr = -1", "cycles = 'many'", "did you mean lr?", "--set nonsense", "seed"):
        assert part in found


def test_unknown_section_names_the_allowed_ones() -> None:
    (line,) = mistakes("zzz.a=1")
    assert line.startswith("zzz: unknown key; allowed:")
    assert "protocol" in line


def test_values_that_do_not_fit_together_are_a_mistake() -> None:
    (line,) = mistakes("model.context_tokens=100", "resources.in_flight=1", "resources.evaluators=2")
    assert "generation.max_tokens (320)" in line
    assert "resources.in_flight (1)" in line


def test_a_fixed_protocols_digest_is_what_it_was_before_there_were_two_kinds() -> None:
    assert ProtocolConfig().digest == "df96c227"
    assert ProtocolConfig(kind="candidate").digest != ProtocolConfig().digest


def test_selection_needs_a_bar() -> None:
    (line,) = mistakes("selection.quantile=null")
    assert line.startswith("selection: give threshold, quantile or both")


@pytest.mark.parametrize(("text", "part"), [("- a\n- b\n", "holds a list"), ("a: [1", "is not YAML")])
def test_unusable_file_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    (line,) = mistakes(source=path)
    assert part in line


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*\n.*cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_protocol_digest_changes_with_the_recipe_but_not_with_the_seed() -> None:
    recipe = ProtocolConfig()
    assert recipe.digest == ProtocolConfig(seed=9).digest
    assert recipe.digest != ProtocolConfig(lr=0.02).digest


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_is_valid(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= set(RunConfig.model_fields)
    load_config(path)
