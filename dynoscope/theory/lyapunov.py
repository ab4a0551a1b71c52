"""The function that Lion-K descends: a Lyapunov function of weight and momentum.

With K and its conjugate K*, Lion-K minimises ``f(w) + K*(lambda w) / lambda``. The loss
alone may rise on the way; H does not, except for what the step's length L eta costs:

    H = f(w) + K*(lambda w) / lambda + c (K*(lambda w) + K(m) - lambda <m, w>)
    H_{t+1} - H_t <= -eta (a D1 + b D2) + (L eta^2 / 2) ||grad K(n) - lambda w_{t+1}||^2

Here m is the paper's momentum, which tracks the *negative* gradient (minus
``exp_avg``), and n = beta1 m - (1 - beta1) grad f(w_t). The scheme is implicit: it
decays w_{t+1}. An optimizer's own, explicit step is the implicit one of `implicit_lr`,
which is then the eta of every other function. With D = eta lambda (1 - beta1) + 1 -
beta2,

    a = 1 + eta lambda beta1 / D,  b = beta1 (1 - beta2) / ((beta2 - beta1) D),
    c = eta beta1 / D;

the constants as printed lack factors of eta and lambda.

Symbols: lr is eta, weight_decay is lambda, positive; 0 < beta1 < beta2 < 1. Every
argument is a float64 array; arrays broadcast, and inner products are taken over the
last axis. Checked within 1e-10 of H in float64 over random
non-convex losses.

Source: Chen et al. 2024 (Lion-K), theorem 4.1.
"""

from dynoscope.theory.hyperparameters import Array

__all__ = ["decrease_bound", "implicit_lr", "momentum_gap", "value", "weight_gap"]


def implicit_lr(lr: Array, weight_decay: Array) -> Array:
    """The eta with which the implicit scheme takes an optimizer's explicit step.

    Args:
        lr: the optimizer's learning rate, per step.
        weight_decay: weight decay, lambda.

    Returns:
        lr / (1 - lr * weight_decay), per step, float64, of the broadcast shape.
    """
    return lr / (1 - lr * weight_decay)


def value(
    loss: Array,
    conjugate: Array,
    momentum_k: Array,
    momentum_weight: Array,
    lr: Array,
    weight_decay: Array,
    betas: tuple[Array, Array],
) -> Array:
    """H(w, m).

    Args:
        loss: f(w).
        conjugate: K*(lambda w), in the loss's unit times lambda; finite once phase 1
            is over: for Lion 0 inside the box.
        momentum_k: K(m).
        momentum_weight: <m, w>.
        lr: eta of the implicit scheme, per step.
        weight_decay: weight decay, lambda, positive.
        betas: beta1 and beta2.

    Returns:
        H, in the loss's unit, float64, of the broadcast shape.
    """
    gap = conjugate + momentum_k - weight_decay * momentum_weight
    coupling = lr * betas[0] / _denominator(lr, weight_decay, betas)
    return loss + conjugate / weight_decay + coupling * gap


def weight_gap(
    step: Array, scaled_weight: Array, mixed: Array, conjugate_grad: Array
) -> Array:
    """D1 = <grad K(n) - lambda w', n - grad K*(lambda w')>, at least 0.

    It is 0 where the step is what the weight asks for: at a stationary point.

    Args:
        step: grad K(n), shape (..., weights).
        scaled_weight: lambda w' of the weight after the step.
        mixed: n.
        conjugate_grad: a subgradient of K* at lambda w'; 0 for Lion, inside the box.

    Returns:
        D1, float64, shape (...).
    """
    gap: Array = ((step - scaled_weight) * (mixed - conjugate_grad)).sum(axis=-1)
    return gap


def momentum_gap(step: Array, next_step: Array, mixed: Array, momentum: Array) -> Array:
    """D2 = <grad K(n) - grad K(m'), n - m'>, at least 0.

    Args:
        step: grad K(n), shape (..., weights).
        next_step: grad K(m') of the momentum after the step.
        mixed: n.
        momentum: m'.

    Returns:
        D2, float64, shape (...).
    """
    gap: Array = ((step - next_step) * (mixed - momentum)).sum(axis=-1)
    return gap


def decrease_bound(
    weight_gap: Array,
    momentum_gap: Array,
    moved_sq: Array,
    smoothness: Array,
    lr: Array,
    weight_decay: Array,
    betas: tuple[Array, Array],
) -> Array:
    """What H_{t+1} - H_t is at most.

    Args:
        weight_gap: D1.
        momentum_gap: D2.
        moved_sq: ||grad K(n) - lambda w'||^2.
        smoothness: L, a Lipschitz constant of the loss's gradient.
        lr: eta of the implicit scheme, per step.
        weight_decay: weight decay, lambda.
        betas: beta1 and beta2, of which the second is larger.

    Returns:
        The bound, in the loss's unit, float64, of the broadcast shape; negative as
        long as the gaps outweigh the step's length.
    """
    beta1, beta2 = betas
    denominator = _denominator(lr, weight_decay, betas)
    a = 1 + lr * weight_decay * beta1 / denominator
    b = beta1 * (1 - beta2) / ((beta2 - beta1) * denominator)
    descent = a * weight_gap + b * momentum_gap
    return -lr * descent + smoothness * lr**2 / 2 * moved_sq


def _denominator(lr: Array, weight_decay: Array, betas: tuple[Array, Array]) -> Array:
    beta1, beta2 = betas
    return lr * weight_decay * (1 - beta1) + (1 - beta2)
