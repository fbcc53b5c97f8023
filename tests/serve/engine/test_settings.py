"""Engine settings, and what vLLM is started with."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_serve.engine.arguments import engine_environment, plugin_options
from loradeck_serve.engine.plugin.options import VARIABLE, PluginOptions
from loradeck_serve.engine.settings import RANKS, EngineSettings
from loradeck_serve.engine.sockets import SocketFolder
from loradeck_serve.engine.versions import check_version


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 100}))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"slotz": 4}, "slotz"),
        ({"slots": -1}, "slots"),
        ({"max_rank": 513}, "max_rank"),
        ({"dtype": "float64"}, "dtype"),
        ({"slots": 8, "host_adapters": 4}, "host_adapters"),
        ({"engine": {"enable_lora": False}}, "enable_lora cannot be passed through; set `slots`"),
        ({"engine": {"max_lora_rank": 64, "seed": 3}}, "max_lora_rank cannot be passed through; set `max_rank`"),
        ({"engine": {"logprobs_mode": "raw"}}, "the server decides that"),
        ({"base_added_token_ids": [101]}, "base_added_token_ids"),
        ({"vocabulary": 90, "base_added_token_ids": [89]}, "base_added_token_ids"),
    ],
)
def test_wrong_settings_are_refused_in_one_line_that_names_them(model, change, field) -> None:
    with pytest.raises(InvalidError) as caught:
        EngineSettings.parse({"model": str(model), **change})
    assert field in caught.value.message
    assert caught.value.message.count("engine settings") == 1
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("rank", [1, 2, 8, 9, 16, 200, 512])
def test_rank_is_rounded_up_to_one_that_the_engine_knows(model, rank) -> None:
    chosen = EngineSettings(model=model, max_rank=rank).engine_rank
    assert chosen in RANKS
    assert chosen >= rank
    assert not any(rank <= other < chosen for other in RANKS)


def test_vocabulary_beyond_the_models_rows_is_refused(model) -> None:
    assert plugin_options(EngineSettings(model=model, vocabulary=100)).table_rows == 0
    with pytest.raises(InvalidError):
        plugin_options(EngineSettings(model=model, vocabulary=101))
    with pytest.raises(InvalidError):
        plugin_options(EngineSettings(model=model, vocabulary=90, base_added_token_ids=(100,)))


def test_a_folder_without_configuration_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidError) as caught:
        EngineSettings(model=tmp_path).rows()
    assert caught.value.field == "model"


def test_plugin_is_active_only_while_its_own_engine_starts(model, monkeypatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    settings = EngineSettings(model=model, vocabulary=90, kv_cache_gib=1, base_added_token_ids=(95,))
    options = plugin_options(settings)
    sockets = SocketFolder()
    with engine_environment(settings, options, sockets):
        assert PluginOptions.from_environment() == options
        assert os.environ["VLLM_RPC_BASE_PATH"] == str(sockets.path)
        assert "VLLM_CPU_KVCACHE_SPACE" not in os.environ
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    sockets.remove()
    assert VARIABLE not in os.environ
    assert "VLLM_RPC_BASE_PATH" not in os.environ
    assert PluginOptions.from_environment() is None
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "7"


@pytest.mark.parametrize(
    ("changes", "compiled"),
    [({}, True), ({"enforce_eager": False}, True), ({"enforce_eager": True}, False), ({"slots": 0}, False)],
)
def test_a_model_with_adapters_is_compiled_unless_told_otherwise(model, changes, compiled) -> None:
    settings = EngineSettings(model=model, **changes)
    assert plugin_options(settings).compiled is compiled
    assert not plugin_options(settings, "stock").compiled


@pytest.mark.parametrize("changes", [{"vocabulary": 80}, {"embedding_lora": True}, {"max_added_tokens": 5}])
def test_a_compiled_model_is_not_found_again_where_other_options_shaped_it(model, changes) -> None:
    settings = EngineSettings(model=model, vocabulary=90)
    signature = plugin_options(settings).signature()
    assert plugin_options(settings.model_copy(update=changes)).signature() != signature
    assert replace(plugin_options(settings), front_end=1).signature() == signature


def test_registering_the_plugin_elsewhere_changes_nothing(monkeypatch) -> None:
    from loradeck_serve.engine import plugin
    from loradeck_serve.engine.plugin import patches

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(patches, "install", lambda options: pytest.fail("installed"))
    plugin.register()


@pytest.mark.parametrize("version", ["0.24.0", "0.32.0", "0.33.1", "0.30.0+cpu"])
def test_supported_versions_pass(version) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.23.9", "0.34.0", "1.0.0", "unknown"])
def test_unknown_versions_are_a_message_and_not_a_guess(version) -> None:
    with pytest.raises(PreconditionError) as caught:
        check_version(version)
    assert caught.value.reason == "ENGINE_VERSION"
    assert version in caught.value.message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_engine_arguments_that_vllm_does_not_know_are_refused_with_the_nearest(model) -> None:
    pytest.importorskip("vllm")
    from loradeck_serve.engine.arguments import engine_arguments

    def arguments_of(settings):
        return engine_arguments(settings, plugin_options(settings))

    with pytest.raises(InvalidError) as caught:
        arguments_of(EngineSettings(model=model, engine={"block_sise": 32}))
    assert caught.value.field == "engine.block_sise"
    assert "block_size" in caught.value.message
    arguments = arguments_of(EngineSettings(model=model, slots=2, max_rank=9, engine={"block_size": 32}))
    assert (arguments.block_size, arguments.max_loras, arguments.max_lora_rank) == (32, 2, 16)
    # One more than is ever admitted, so that the engine itself never evicts.
    assert arguments.max_cpu_loras == EngineSettings(model=model, slots=2).loaded_limit + 1
