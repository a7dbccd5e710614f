"""Names and meaning of what the rules read besides accuracies: measurements of runs, values of chapters.

Measurements live in a run's `measurements.csv`, records
`{name, t1, label, images, statistic, value, n, settings}`. Unless said otherwise `statistic` is
"median" (over images), `label` is "all" (or a class, "0" to "9", or a pair of classes, "6-4") and `images`
is "clean" (or "pgd": attacked by PGD with the exact gradient at t1 = 1, epsilon 0.3, clipped; or "fooled":
attacked by PGD-40 with momentum and gradients at noisy points, and misclassified by it). `part` in
the settings is "whole" for the state as it is, "centred" for the state with the common drift of every group
removed (`nodelib.dynamics.remove_drift`), the part of it that can carry information. A median over six images
and more has its 95 % interval in the settings, `low` and `high`
(`nodelib.experiment.measurement.median_interval`); older records have none.

Chapter values live in `data/claims/<id>.json`, written by `nodelib.verdicts.record_chapter`.
"""

SWEPT = "worst-eps"  # and those of worst cases over a sweep of epsilons
LADDER = "ladder"  # with which the labels of the cascade at rising epsilons begin
LADDER_EPSILONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
LADDER_CHECK, CHECKED_EPSILON = "check", 0.1  # stronger attacks than the ladder's, at one of its epsilons

STATE_MEASUREMENTS: dict[str, str] = {
    "norm": "Euclidean norm of the state z(t1)",
    "state_change": "|z(t1) - z(since)| / |z(since)|; settings: since",
    "state_angle": "angle in degrees between z(since) and z(t1); settings: since, part",
    "velocity_angle": "angle in degrees between f(z(since)) and f(z(t1)); settings: since, part",
    "state_velocity_angle": "angle in degrees between z(t1) and f(z(t1)); settings: part",
    "relative_speed": "|f(z)| / |z| at t1, per unit time",
    "turning": "radians per unit of log t by which the direction of z turns at t1: t1 |P f| / |z|, P the "
               "projection orthogonal to z; zero on a ray; settings: part",
    "settling_time": "end time, from 1 on, after which the quantity in settings.measure ('turning', centred, "
                     "or 'relative_speed') stays below settings.threshold; infinite (stored as 1e9) if not "
                     "by 1000",
    "nearest_class": "share of images whose centred direction is nearest (in angle) to the mean direction of "
                     "their own class, class means from other, clean images; statistic 'mean'",
    "class_mean_angle": "angle in degrees between the mean states of the two classes of the label, part "
                        "'whole'",
    "silhouette": "mean silhouette of the centred directions under the angle; statistic 'mean'",
    "linear_probe": "share of images whose class a linear classifier of centred directions, fitted to other "
                    "images, gets right; statistic 'mean'; shown, not judged",
    "state_accuracy": "share of images that the network's head classifies correctly at t1; statistic 'mean'; "
                      "shown, not judged",
    "ray_distance": "|f(w) - w| / |w| at w = z / t1 (leaky: at w = z), zero on a ray; settings: part; shown, "
                    "not judged",
    "attractors": "number of distinct rays (angle above 5 degrees) on which at least 5 % of the label's "
                  "class end, found by solving f(w) = w from their states at t1; statistic 'count'",
    "own_attractors": "number of those rays on which no other class ends (5 % of its images); statistic "
                      "'count'",
    "ray_share": "share of the label's class that ends on the ray most of it ends on, 0 where none counts; "
                 "statistic 'mean'",
    "distinct_attractors": "number of distinct rays on which at least 5 % of some class end, all classes "
                           "together; statistic 'count'; shown, not judged",
    "ray_residual": "|f(w) - w| / |w| of those rays; statistic 'max'",
    "ray_eigenvalue": "largest real part of the eigenvalues of the Jacobian of f at those rays, on centred "
                      "directions; below 1 attracts; statistic 'max'",
    "on_a_ray": "share of images with |f(w) - w| / |w| below 1e-3 after a further flow in log time; "
                "statistic 'mean'; shown, not judged",
    "on_a_ray_later": "the same share after the longer flow in settings.log_time; statistic 'mean'; shown, "
                      "not judged",
    "rays_later": "number of distinct rays on which those images are; statistic 'count'; shown, not judged",
    "rays_later_attracting": "number of those rays, at the end of the longest flow, that attract: solved for "
                             "from an image on each (residual at most 1e-6, within 5 degrees), leading real "
                             "part and its Ritz residual together below 1, in settings.eigenvalues and "
                             "ritz_residuals; images on each, in settings.on_each, and by digit in "
                             "settings.by_class; statistic 'count'; shown, not judged",
    "class_rays": "number of distinct rays that solves of f(w) = w from the mean states of the ten classes "
                  "find (residual at most 1e-6); statistic 'count'; shown, not judged",
    "class_ray_residual": "|f(w) - w| / |w| where the solve from the label's class stops; statistic 'max'; "
                          "shown, not judged",
    "class_ray_eigenvalue": "largest real part of the eigenvalues of the Jacobian of f there; statistic "
                            "'max'; shown, not judged",
    "lyapunov_exponent": "largest Lyapunov exponent of dw/ds = f(w) - w per unit of log time; statistic "
                         "'mean'; shown, not judged",
    "attacked_angle": "angle in degrees between the centred directions of an attacked image's state and its "
                      "clean image's, at t1; images 'pgd' or 'fooled'",
    "nearest_said": "share of fooled images nearest to the direction of the class that the network takes "
                    "them for at the end time of the attack; statistic 'mean'; shown, not judged",
    "fooled_share": "share of the images attacked that were classified right and no longer are; where it is "
                    "0 there is no other record of fooled images; older runs lack it; images 'fooled', "
                    "statistic 'mean'; shown, not judged",
    "jacobian_norm": "largest singular value of df/dz, mean along the path from 0 to t1",
    "path_turning": "total angle in radians by which the velocity f turns along the path from 0 to t1",
    "accepted_steps": "accepted steps of dopri5 at tolerance 1e-3 from 0 to t1, one image per solve",
}

GRADIENT_MEASUREMENTS: dict[str, str] = {
    "zero_gradient": "share of images whose input gradient is exactly zero in every pixel; settings: "
                     "gradient, rtol, loss, logit_scale, batch; statistic 'mean'",
    "sign_agreement": "share of pixels in which the sign of the input gradient is that of the float64 "
                      "reference at tolerance 1e-7, pixels of gradient zero included (a guess: a half, and "
                      "more where pooling passes pixels over); settings: gradient, rtol; statistic 'mean'",
    "gradient_cosine": "cosine of the input gradient and the reference; settings: gradient, rtol",
    "gradient_error": "relative error |found - reference| / |reference| of the input gradient; settings: "
                      "gradient, rtol",
    "finite_difference": "relative difference of the reference's derivative along its own sign and a central "
                         "difference of the loss, float64; settings: noise added to the pixels, which breaks "
                         "ties in the max pooling",
    "logit_gap": "distance of the two largest logits",
    "logit_size": "mean absolute logit; statistic 'mean'",
}

STEP_MEASUREMENTS: dict[str, str] = {
    "gap_past": "share of images whose two largest logits, times settings.logit_scale, differ by more than "
                "settings.threshold, pooling redrawn; statistic 'mean'",
    "step_cause": "share of images that the statistic names of those left by one step of FGSM on the "
                  "cross-entropy (see `nodelib.experiment.overshoot.causes`); settings: logit_scale, "
                  "gradient, kept weights",
    "step_left": "share of images that one step of length settings.epsilon leaves, unclipped, along the "
                 "direction that the statistic names; settings as before",
    "turned_signs": "share of signs in which the cross-entropy's gradient in float32 is that in double "
                    "precision, images between the two horizons (see `nodelib.experiment.horizon`); "
                    "statistic 'mean'; settings as before",
}

# of settings.steps further steps by settings.recipe, see `nodelib.experiment.two_gradients`; shown, not
# judged
TRAINING_MEASUREMENTS: dict[str, str] = {
    "training_cosine": "cosine, over all weights, of the continuous adjoint's gradient and the exact one, on "
                       "the adjoint's way; statistics 'median', 'q10' over steps",
    "training_error": "their |difference| / |exact|; statistics 'median', 'q90' over steps",
    "training_loss": "loss of the steps by settings.gradient; statistic 'mean'",
    "weights_apart": "distance of the two networks' weights after the steps, over the length of the exact "
                     "way",
    "trained_on": "of the network after the steps by settings.gradient ('none': before) the quantity of "
                  "`snapshots.csv` that the statistic names, at the own end time",
}

# shown, not judged; statistics "median", "q10" and "q90" over images, at the network's own end time
LOCAL_MEASUREMENTS: dict[str, str] = {
    "margin": "true logit minus the largest wrong one",
    "margin_slope": "l1 norm of the gradient of that margin in the image, exact, fixed pooling",
    "local_robustness": "margin over its slope: to first order the change of every pixel that the image "
                        "withstands, whatever the scale of the logits; negative where it is misclassified",
    "expansion": "|J^T u| for a random unit u, J the derivative of y(t1) in y(0), of a residual network of "
                 "all blocks' output in their input",
    "relative_expansion": "the same times |y(0)| / |y(t1)|: of changes relative to the state",
}

# of images attacked by PGD-40 on the margin at settings.epsilon (0: clean), at the own end time; those that
# the program, 64 images a solve at tolerance 1e-3, gets wrong unattacked are left out of the shares; shown,
# not judged
SOLVER_MEASUREMENTS: dict[str, str] = {
    "fools_program_only": "share of images that fool the program which settings.solver classifies right "
                          "('flow': float64 at 1e-7; 'rk4'; '1e-5'; 'one by one': at 1e-3); statistic 'mean'",
    "fools_solver_only": "share of images that the program classifies right which settings.solver gets "
                         "wrong; statistic 'mean'",
    "solver_error": "|difference of the margins by settings.solver and by the program| over the median "
                    "margin of clean images",
    "solver_bias": "program's margin minus the flow's, over the median margin of clean images, on images "
                   "attacked or moved by random signs: settings.attack",
    "solver_distance": "the absolute value of that",
    "step_changes": "changes of the pattern of accepted and rejected steps between settings.points points of "
                    "the straight way from image to attacked image, each solved alone; statistic 'mean'",
    "step_jump": "|jump of the margin at the first such change| over the clean margin",
    "reverse_error": "error of the exact gradient against central differences of the program itself over "
                     "settings.difference, along signs of the gradient (over its l1 norm) or random ones "
                     "(over its Euclidean norm); settings.steps: sizes 'of the image', or 'held'; float64, "
                     "pixels with noise",
}

# the same at other end times, and at other tolerances of the program in settings.tolerance; shown, not judged
ELSEWHERE_MEASUREMENTS: dict[str, str] = {
    "program_right": "share of unattacked images that the program classifies right; statistic 'mean'",
    "fools_program_only_there": "as fools_program_only",
    "fools_solver_only_there": "as fools_solver_only",
    "solver_error_there": "as solver_error",
}

# on images made by an attack that solves at the tolerance settings.made_at, solved at 1e-3; shown, not judged
SOUGHT_MEASUREMENTS: dict[str, str] = {
    "solver_bias_made": "as solver_bias",
    "solver_distance_made": "as solver_distance",
    "fools_program_made": "share of all images, those wrong from the start included, that fool the program; "
                          "statistic 'mean'",
    "solver_distance_sought": "solver_distance_made of the image made at 1e-3 less that of the one made at "
                              "1e-5",
}

# of the last thousand training images, which the further training of a network left out; shown, not judged
HELD_OUT_MEASUREMENTS: dict[str, str] = {
    "held_out_left": "share of them classified right under settings.attack ('none', 'pgd' along summed "
                     "gradients, 'square') at settings.epsilon; statistic 'mean'",
}

# of a solve, a gradient and a scoring by one version of torchdiffeq; shown, not judged
VERSION_MEASUREMENTS: dict[str, str] = {
    "version_left": "share of images that one step of FGSM by the post's protocol leaves right, logits times "
                    "settings.logit_scale before the loss, all of it by torchdiffeq settings.version, each "
                    "batch in settings.devices solves; statistic 'mean'",
}

MEASUREMENTS: dict[str, str] = {**STATE_MEASUREMENTS, **GRADIENT_MEASUREMENTS, **STEP_MEASUREMENTS,
                                **TRAINING_MEASUREMENTS, **LOCAL_MEASUREMENTS, **SOLVER_MEASUREMENTS,
                                **ELSEWHERE_MEASUREMENTS, **SOUGHT_MEASUREMENTS, **HELD_OUT_MEASUREMENTS,
                                **VERSION_MEASUREMENTS}

CHAPTER_VALUES: dict[str, dict[str, str]] = {
    "C1": {
        "unit_step_difference": "largest absolute difference between Euler with unit steps and the residual "
                                "network, over all layers",
        "euler_order": "observed order of convergence of Euler's end state to the ODE's as the step shrinks",
    },
    "C2": {
        "step_against_error": "list, one per trajectory of a trained network: Spearman correlation of "
                              "accepted step size with the embedded error estimate of a fixed small step at "
                              "the same point",
        "step_against_rate": "same, with |f'| / |f|, the rate at which the velocity changes, in place of the "
                             "error",
        "step_against_speed": "same, with the speed |f| (shown, not judged)",
    },
    "C3": {
        "gradient_difference": "largest relative difference between adjoint, backprop and finite "
                               "differences, float64, smooth dynamics, tight tolerance",
        "memory_growth_adjoint": "peak memory of the adjoint with ten times the steps, over that with one "
                                 "times",
        "memory_growth_backprop": "same for backprop through the solver",
        "end_times": "list of end times, among them 1, 10, 100 and 500",
        "adjoint_error": "list per end time: relative error of the adjoint's input gradient on a trained "
                         "table network at tolerance 1e-3, against a float64 reference",
        "backprop_error": "same for backprop through the same solve",
    },
    "C6": {
        "rmse_ode": "list, one per random seed: root mean square error of the ODE model on held-out "
                    "irregular times",
        "rmse_rnn": "same for the recurrent network",
        "parameters_ode": "number of parameters", "parameters_rnn": "number of parameters",
    },
    "C7": {
        "log_density_difference": "largest absolute difference between the trace-based log-density and the "
                                  "change of variables computed from the flow's Jacobian, float64, on the "
                                  "two moons",
        "trace_exponent": "growth exponent, in the dimension, of the cost of the trace",
        "logdet_exponent": "growth exponent, in the dimension, of the cost of the log-determinant",
    },
}
