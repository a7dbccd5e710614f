"""The adapters to other libraries' attacks, and agreement of ours with theirs."""

import inspect
import sys

import pytest
import torch
from torch import nn

import nodelib.attacks
from nodelib.attacks import (
    Attack,
    AttackError,
    apgd_ce,
    apgd_dlr,
    apgd_t,
    common,
    fab_t,
    fgsm,
    hop_skip_jump,
    library_afterthoughts,
    library_warnings,
    pgd,
    square,
)
from nodelib.attacks import strong as strong_module

CALLS = {
    "apgd-ce": lambda *a, **k: apgd_ce(*a, **{"steps": 5, **k}),
    "apgd-t": lambda *a, **k: apgd_t(*a, **{"steps": 2, **k}),
    "apgd-dlr": lambda *a, **k: apgd_dlr(*a, **{"steps": 5, **k}),
    "fab-t": lambda *a, **k: fab_t(*a, **{"steps": 2, **k}),
    "square": lambda *a, **k: square(*a, **{"steps": 20, **k}),
    "hop-skip-jump": lambda *a, **k: hop_skip_jump(*a, **{"queries": 60, **k}),
}


@pytest.fixture(params=CALLS)
def attack(request):
    pytest.importorskip("foolbox" if request.param == "hop-skip-jump" else "pyautoattack",
                        reason="the attack libraries are missing: pip install 'nodelib[attacks]'")
    return CALLS[request.param]


@pytest.fixture
def foolbox():
    return pytest.importorskip("foolbox", reason="foolbox is missing: pip install 'nodelib[attacks]'")


@pytest.fixture(scope="module")
def trained(tiny_run):
    return tiny_run.load_model()


class Smooth(nn.Module):
    """A small convolutional network without kinks: rounding flips no sign far from zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.Softplus(), nn.Conv2d(8, 8, 3, stride=2),
                                    nn.Softplus(), nn.Flatten(), nn.Linear(200, 10))

    def forward(self, images):
        return 20 * self.layers(images)


def accuracy(model, images, labels) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


@pytest.mark.parametrize("attack", [apgd_ce, apgd_dlr, apgd_t, fab_t, square])
def test_a_strong_attack_is_a_function_that_says_what_it_is(attack):
    assert vars(nodelib.attacks)[attack.__name__] is attack
    said = inspect.getdoc(attack)
    assert all(word in said for word in ("Croce", "steps: ", "at least 1", "(N, C, H, W)", "Raises:"))
    assert list(inspect.signature(attack).parameters) == ["model", "images", "labels", "epsilon", "steps",
                                                          "options"]


def test_fgsm_is_foolboxs_pixel_for_pixel(foolbox, test_images):
    model = Smooth().eval()
    images, labels = test_images[0][:16], test_images[1][:16]
    theirs = foolbox.attacks.LinfFastGradientAttack(random_start=False)(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=0.1)[1]
    assert torch.equal(fgsm(model, images, labels, 0.1), theirs)


def test_pgd_is_foolboxs_to_a_millionth(foolbox, test_images):
    model = Smooth().eval()
    images, labels = test_images[0][:16], test_images[1][:16]
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=0.03, steps=10, random_start=False)(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=0.1)[1]
    ours = pgd(model, images, labels, 0.1, step_size=0.03, steps=10, random_start=False)
    assert (ours - theirs).abs().max() <= 1e-6
    assert (ours - images).abs().max() > 0.09


def test_on_an_ode_net_foolboxs_attacks_leave_the_same_accuracy(foolbox, trained, test_images):
    images = test_images[0][:32]
    with torch.no_grad():
        labels = trained(images).argmax(1)  # all right at first
    wrapped = foolbox.PyTorchModel(trained, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    theirs = attack(wrapped, images, labels, epsilons=0.02)[1]
    ours = fgsm(trained, images, labels, 0.02)
    assert abs(accuracy(trained, theirs, labels) - accuracy(trained, ours, labels)) <= 1 / 32
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.005, steps=5, random_start=False)
    theirs = attack(wrapped, images, labels, epsilons=0.01)[1]
    ours = pgd(trained, images, labels, 0.01, step_size=0.005, steps=5, random_start=False)
    assert abs(accuracy(trained, theirs, labels) - accuracy(trained, ours, labels)) <= 2 / 32


def test_a_strong_attack_stays_in_ball_and_box_and_breaks_images(attack, trained, test_images):
    images = test_images[0][:6]
    with torch.no_grad():
        labels = trained(images).argmax(1)
    adversarial = attack(trained, images, labels, 0.3)
    assert (adversarial - images).abs().max() <= 0.3 + 1e-6
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert accuracy(trained, adversarial, labels) < 1


def test_a_strong_attack_is_repeatable_and_leaves_torchs_generator_alone(attack, trained, test_images):
    images, labels = test_images[0][:3], test_images[1][:3]
    torch.manual_seed(5)
    first = attack(trained, images, labels, 0.2, seed=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, attack(trained, images, labels, 0.2, seed=1))


def test_epsilon_zero_returns_the_images(attack, trained, test_images):
    assert torch.equal(attack(trained, test_images[0][:2], test_images[1][:2], 0.0), test_images[0][:2])


@pytest.mark.parametrize("change, message", [
    (dict(images=torch.full((2, 1, 28, 28), 1.5)), "allowed range is \\[0, 1\\]"),
    (dict(images=torch.full((2, 1, 28, 28), float("nan"))), "contain NaN"),
    (dict(labels=torch.tensor([1, -1])), "from -1 to 1"), (dict(epsilon=-0.1), "epsilon is -0.1"),
    (dict(clip=False), "pixel box only; use clip=True"),
])
def test_bad_input_is_refused_before_any_work(attack, change, message, trained):
    values = {"images": torch.zeros(2, 1, 28, 28), "labels": torch.tensor([1, 2]), "epsilon": 0.3, **change}
    trained.block.func.nfe = 0
    with pytest.raises(ValueError, match=message):
        attack(trained, values["images"], values["labels"], values["epsilon"], clip=values.get("clip", True))
    assert trained.block.func.nfe == 0


@pytest.mark.parametrize("classes", [4, 6])
def test_a_strong_attack_knows_the_networks_number_of_classes(attack, classes):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, stride=2), nn.Softplus(), nn.Flatten(), nn.Linear(196, classes)
    model = nn.Sequential(*layers).eval()
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)  # every class is near
        labels = model(images).argmax(1)
    adversarial = attack(model, images, labels, 0.5)
    assert adversarial.shape == images.shape and accuracy(model, adversarial, labels) < 1
    with pytest.raises(ValueError, match=f"labels reach to {classes}"):
        attack(model, images, labels * 0 + classes, 0.2)


@pytest.mark.filterwarnings("ignore:there are . points with zero gradient")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("arrange", [
    lambda x: x, lambda x: x.to(memory_format=torch.channels_last), lambda x: x.mT.contiguous().mT,
], ids=["contiguous", "channels last", "transposed"])
def test_a_strong_attack_takes_images_of_any_precision_and_layout(attack, arrange, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Softplus(), nn.Flatten(), nn.Linear(196, 6)).eval()
    model, images = model.to(dtype), torch.rand(4, 3, 16, 16, dtype=dtype)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)
        labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 6  # misclassified already
    adversarial = attack(model, arrange(images), labels, 0.5)
    assert adversarial.dtype == dtype and adversarial.shape == images.shape
    assert torch.equal(adversarial[0], images[0]) and (adversarial - images).abs().max() <= 0.5 + 1e-6
    assert accuracy(model, adversarial, labels) < 0.75
    assert torch.equal(attack(model, images, labels, 0.5), adversarial)


def test_a_model_in_double_precision_is_asked_in_it(attack):
    seen = []

    class Asked(nn.Linear):
        def forward(self, images):
            seen.append(images.dtype)
            return super().forward(images.flatten(1))

    model, images = Asked(48, 5, dtype=torch.float64).eval(), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    attack(model, images, model(images).argmax(1), 0.5)
    assert len(seen) > 2 and {*seen} == {torch.float64}


def test_two_classes_are_too_few_for_ratios_of_logits():
    pytest.importorskip("pyautoattack", reason="missing: pip install 'nodelib[attacks]'")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    for one in ("apgd-dlr", "apgd-t"):
        with pytest.raises(ValueError, match="expected logits of shape"):
            CALLS[one](model, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), 0.1)
    with pytest.raises(ValueError, match="first and the third"):
        fgsm(model, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), 0.1, loss="dlr")


def test_a_model_in_training_mode_or_with_a_random_forward_pass_is_refused(attack, small, test_images):
    with pytest.raises(ValueError, match="training mode"):
        attack(small.train(), test_images[0][:2], test_images[1][:2], 0.3)
    small.eval().pooling = "random"
    with pytest.raises(ValueError, match="allow_random_forward"):
        attack(small, test_images[0][:2], test_images[1][:2], 0.3)


def test_logits_that_are_not_finite_are_refused(attack, small, test_images):
    with torch.no_grad():
        small.linear.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="logits are not finite"):
        attack(small, test_images[0][:2], test_images[1][:2], 0.3)


def test_a_missing_library_says_what_to_install(small, test_images, monkeypatch):
    for library, call in (("pyautoattack", apgd_ce), ("foolbox", hop_skip_jump)):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=f"{library}.*pip install 'nodelib\\[attacks\\]'"):
            call(small, test_images[0][:2], test_images[1][:2], 0.3)


def test_a_library_that_leaves_the_ball_or_the_box_is_caught(small, test_images, monkeypatch):
    pytest.importorskip("pyautoattack")
    images, labels = test_images[0][:2], test_images[1][:2]
    for change, message in ((0.4, "moved a pixel by 0.4; the ball allows 0.3"),
                            (-0.2, "allowed range is \\[0, 1\\]")):
        monkeypatch.setattr(strong_module, "_construct", lambda *a, c=change: lambda x, y: x + c)
        with pytest.raises(AttackError, match=message):
            apgd_ce(small, images, labels, 0.3)


@pytest.mark.parametrize("change, message", [
    (lambda x: x[:1], "returned shape"), (lambda x: x * float("nan"), "not finite"),
    (lambda x: x + 0.2, "moved a pixel"),
])
def test_the_output_check_refuses_what_no_attack_may_return(change, message):
    images = torch.full((2, 1, 28, 28), 0.5)
    with pytest.raises(AttackError, match=message):
        common.check_result(change(images), images, 0.1, clip=True)
    assert common.check_result(images + 0.1, images, 0.1, clip=True) is not None


def test_the_output_check_allows_pixels_outside_the_box_only_without_clipping():
    images = torch.zeros(1, 1, 28, 28)
    assert common.check_result(images - 0.1, images, 0.1, clip=False).min() < 0
    with pytest.raises(AttackError, match="allowed range"):
        common.check_result(images - 0.1, images, 0.1, clip=True)


def test_the_label_only_attack_spends_no_more_queries_than_allowed(foolbox, trained, test_images):
    with torch.no_grad():
        label = trained(test_images[0][:1]).argmax(1)
    calls = []
    hook = trained.register_forward_hook(lambda *a: calls.append(1))
    hop_skip_jump(trained, test_images[0][:1], label, 1e-4, queries=37)
    hook.remove()
    assert len(calls) == 37


def test_the_librarys_warnings_are_heard(test_images):
    pytest.importorskip("pyautoattack", reason="pyautoattack is missing: pip install 'nodelib[attacks]'")
    images, labels = test_images[0][:8], test_images[1][:8]
    model = Smooth().eval()
    before, tracer = sys.gettrace(), lambda *event: None
    sys.settrace(tracer)
    try:
        assert library_warnings(model, images, labels) == []
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)

    class Saturated(Smooth):
        def forward(self, images):
            return 1e6 * super().forward(images)

    class Probabilities(Smooth):
        def forward(self, images):
            return super().forward(images).softmax(1)

    coloured = torch.rand(4, 3, 8, 8)
    many = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 5)).eval()
    for dtype in (torch.float32, torch.float64):
        many.to(dtype, memory_format=torch.channels_last)
        assert library_warnings(many, coloured.to(dtype), torch.arange(4)) == []
    said = library_warnings(Saturated().eval(), images, labels)
    assert len(said) == 1 and "points with zero gradient" in said[0]
    assert any("probability distribution" in line
               for line in library_warnings(Probabilities().eval(), images, labels))


def test_the_library_warns_where_square_got_further_than_gradients():
    pytest.importorskip("pyautoattack", reason="pyautoattack is missing: pip install 'nodelib[attacks]'")
    left = {"apgd-ce": 0.86, "apgd-t": 0.84, "fab-t": 0.84}
    said, = library_afterthoughts({**left, "square": 0.54})
    assert "decreased the robust accuracy of 30.00%" in said
    assert "more iterations and restarts or an adaptive attack" in said
    assert library_afterthoughts({**left, "square": 0.839}) == library_afterthoughts(left) == []
    with pytest.raises(ValueError, match="unknown attack 'pgd'; the attacks of the set are apgd-ce"):
        library_afterthoughts({"pgd": 0.5})


def test_a_random_forward_pass_is_warned_of(trained, test_images):
    pytest.importorskip("pyautoattack", reason="pyautoattack is missing: pip install 'nodelib[attacks]'")
    images, labels = test_images[0][:8], test_images[1][:8]
    assert not any("randomized" in line for line in library_warnings(trained, images, labels, t1=1.0))
    trained.pooling = "random"
    try:
        said = library_warnings(trained, images, labels, t1=1.0, allow_random_forward=True)
        assert any("randomized" in line for line in said)
    finally:
        trained.pooling = "fixed"


def test_draws_are_refused_where_nothing_averages_them(small, test_images):
    pytest.importorskip("pyautoattack",
                        reason="the attack libraries are missing: pip install 'nodelib[attacks]'")
    with pytest.raises(ValueError, match="draws is 2 with square"):
        strong_module.strong("square", small, test_images[0][:1], test_images[1][:1], 0.3, steps=1, draws=2)


class _InPlace(torch.nn.Module):
    """Shifts its images in place."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))

    def forward(self, x):
        x -= 0.5
        return self.layers(x)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "hop-skip-jump", "fab-t", "apgd-t", "square"])
def test_a_model_may_change_its_images_in_place(name):
    torch.manual_seed(0)
    changing = _InPlace().eval()
    alike = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)).eval()
    alike.load_state_dict(changing.layers.state_dict())
    copying = lambda x: alike(x - 0.5)  # noqa: E731
    images = torch.rand(3, 3, 8, 8)
    labels, before = copying(images).argmax(1), images.clone()
    few = {"fgsm": {}, "pgd": dict(steps=4, step_size=0.1), "fab-t": dict(steps=4), "apgd-t": dict(steps=4)}
    attack = Attack(name, 0.3, **few.get(name, dict(steps=300)))
    found = attack(changing, images, labels)
    assert torch.equal(images, before) and (copying(found).argmax(1) != labels).any()


def test_hop_skip_jump_leaves_a_model_in_training_mode_there():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.1), torch.nn.Linear(192, 5)).train()
    images = torch.rand(2, 3, 8, 8)
    Attack("hop-skip-jump", 0.1, steps=20, allow_training_mode=True)(model, images, model(images).argmax(1))
    assert model.training and all(part.training for part in model)
