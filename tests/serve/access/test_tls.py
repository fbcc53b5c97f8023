"""Doors with TLS: who gets through, what a new certificate changes, and what a wrong one does not."""

import asyncio
import ssl
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from cryptography import x509

from loradeck_cli.health import ask
from loradeck_client import Access, AsyncAdminClient, AsyncClient, RetryPolicy, UnavailableError
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError
from loradeck_serve.config import Tls
from loradeck_serve.grpc.tls import Certificates
from tests.serve.access.certificates import Authority
from tests.serve.access.people import People
from tests.serve.conftest import Start

ONCE = RetryPolicy(attempts=1)


async def classify(address: object, access: Access) -> str:
    """Ask once; the label."""
    async with AsyncClient(str(address), retry=ONCE, timeout=10, access=access) as client:
        return (await client.classify("x", adapter="clf")).label


async def shown(address: object) -> str:
    """The common name in the certificate that a door shows."""
    host, _, port = str(address).rpartition(":")
    text = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(text.encode()).subject.rfc4514_string().removeprefix("CN=")


async def test_doors_speak_tls_and_take_a_new_certificate_without_a_restart(start: Start, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.server("first")
    running = await start(tls={"certificate": certificate, "key": key})
    where = running.server.addresses
    trusting = Access(ca=authority.file)
    assert await classify(where.inference, trusting)
    async with AsyncAdminClient(str(where.admin), access=trusting, retry=ONCE) as admin:
        assert [adapter.name for adapter in await admin.list()] == ["clf"]
    context = ssl.create_default_context(cafile=authority.file)
    page = await asyncio.to_thread(lambda: urlopen(f"https://{where.metrics}/metrics", context=context).read().decode())
    ends = next(line for line in page.splitlines() if line.startswith("loradeck_certificate_expiry"))
    assert 29 < (float(ends.split()[1]) - time.time()) / 86400 < 31
    assert await asyncio.to_thread(ask, str(where.inference), access=trusting) == "SERVING"

    for refused in (Access(), Access(tls=True), Access(ca=other.file)):
        with pytest.raises(UnavailableError):
            await classify(where.inference, refused)
    with pytest.raises(UnavailableError, match="--tls-name") as caught:
        await classify(where.inference, Access(ca=authority.file, server_name="other.example"))
    assert caught.value.reason == "TLS_FAILED"
    with pytest.raises((URLError, ConnectionError)):
        await asyncio.to_thread(lambda: urlopen(f"http://{where.metrics}/metrics", timeout=5).read())

    second, second_key = authority.server("second")
    # First something that cannot be used: the old certificate stays.
    key.write_bytes(second_key.read_bytes())
    await asyncio.sleep(1.5)
    assert await shown(where.inference) == "first"
    ended, ended_key = authority.server("ended", days=-0.5)
    certificate.write_bytes(ended.read_bytes())
    key.write_bytes(ended_key.read_bytes())
    await asyncio.sleep(1.5)
    assert await shown(where.inference) == "first"
    key.write_bytes(second_key.read_bytes())
    certificate.write_bytes(second.read_bytes())
    for door in (where.inference, where.admin, where.metrics):
        async with asyncio.timeout(10):
            while await shown(door) != "second":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert await classify(where.inference, trusting)


async def test_mutual_tls_takes_no_connection_without_a_certificate(start: Start, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.server()
    running = await start(tls={"certificate": certificate, "key": key, "client_ca": authority.file})
    where = running.server.addresses
    assert await classify(where.inference, authority.client("web"))
    stranger = other.client("stranger")
    for refused in (
        Access(ca=authority.file),
        Access(ca=authority.file, certificate=stranger.certificate, key=stranger.key),
    ):
        with pytest.raises(UnavailableError):
            await classify(where.inference, refused)
    context = ssl.create_default_context(cafile=authority.file)
    with pytest.raises((URLError, ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(lambda: urlopen(f"https://{where.metrics}/metrics", context=context, timeout=5).read())
    web = authority.client("scraper")
    assert web.certificate is not None
    context.load_cert_chain(web.certificate, web.key)
    page = await asyncio.to_thread(lambda: urlopen(f"https://{where.metrics}/metrics", context=context).read())
    assert b"loradeck_build_info" in page


async def test_a_metrics_connection_that_says_nothing_stops_no_other(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server()
    running = await start(tls={"certificate": certificate, "key": key, "doors": ["metrics"]})
    address = running.server.addresses.metrics
    silent = [await asyncio.open_connection(address.host, address.port) for _ in range(5)]
    context = ssl.create_default_context(cafile=authority.file)
    page = await asyncio.to_thread(lambda: urlopen(f"https://{address}/metrics", context=context, timeout=5).read())
    assert b"loradeck_build_info" in page
    for _, writer in silent:
        writer.close()
    # The other doors speak plaintext.
    assert await classify(running.server.addresses.inference, Access())


async def test_doors_in_plaintext_beyond_this_machine_are_a_warning(
    start: Start, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    await start(inference="0.0.0.0:0", metrics="0.0.0.0:0", insecure=True)
    warned = {(vars(r)["door"], "plaintext" in r.message) for r in caplog.records if "beyond this machine" in r.message}
    assert warned == {("inference", True), ("inference", False), ("metrics", True)}
    caplog.clear()
    certificate, key = Authority(tmp_path).server()
    people = People(tmp_path)
    await start(inference="0.0.0.0:0", tls={"certificate": certificate, "key": key}, access=people.settings)
    assert not [r for r in caplog.records if "beyond this machine" in r.message]


def test_unusable_certificates_are_one_line(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server("a")
    _, other = authority.server("b")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    cases = {
        (certificate, other, None): "the key does not belong to the certificate",
        (text, key, None): f"{text} for TLS: it does not hold what it should, as PEM",
        (certificate, tmp_path / "absent", None): "No such file",
        (certificate, text, None): f"{text} for TLS: it does not hold what it should, as PEM",
        (certificate, key, text): f"{text} for TLS: it does not hold",
    }
    for (crt, private, ca), words in cases.items():
        with pytest.raises(PreconditionError) as raised:
            Certificates(Tls(certificate=crt, key=private, client_ca=ca))
        assert raised.value.reason == "BAD_CERTIFICATE"
        assert words in raised.value.message
        assert "\n" not in raised.value.message


def test_a_key_does_not_travel_in_plaintext_to_another_machine(tmp_path: Path) -> None:
    Access(api_key="ldk_x").check("127.0.0.1:8500")
    Access(api_key="ldk_x", tls=True).check("models.example.org:8500")
    Access(api_key="ldk_x", insecure=True).check("models.example.org:8500")
    with pytest.raises(InvalidError) as raised:
        Access(api_key="ldk_x").check("models.example.org:8500")
    assert raised.value.reason == "PLAINTEXT_KEY"
    assert "ldk_x" not in raised.value.message
    assert "ldk_x" not in repr(Access(api_key="ldk_x"))
    with pytest.raises(InvalidError):
        Access(certificate=tmp_path / "c").check("127.0.0.1:1")
    with pytest.raises(NotFoundError):
        Access.from_environment({"LORADECK_API_KEY_FILE": str(tmp_path / "absent")})
    (tmp_path / "key").write_text("ldk_y\n")
    assert Access.from_environment({"LORADECK_API_KEY_FILE": str(tmp_path / "key")}).api_key == "ldk_y"
