"""What states do: their common drift, their motion, the rays they settle on, and the classes among them."""

from nodelib.dynamics.classes import (
    ClassDirections,
    class_angles,
    class_directions,
    linear_probe,
    nearest_class,
    silhouette,
)
from nodelib.dynamics.drift import Drift, common_drift, drift_coordinates, drift_part, remove_drift
from nodelib.dynamics.geometry import angle, cosines, direction, inner, norm
from nodelib.dynamics.motion import (
    path_turning,
    ray_distance,
    relative_speed,
    sensitivity,
    settling_time,
    turning,
    velocities,
)
from nodelib.dynamics.paths import QUANTITIES, Paths, follow, states_at
from nodelib.dynamics.rays import (
    Ray,
    cluster,
    flow_in_log_time,
    jacobian_eigenvalues,
    jacobian_norm,
    leading_eigenvalue,
    lyapunov_exponent,
    normalised_field,
    solve_ray,
)

__all__ = [
    "QUANTITIES", "ClassDirections", "Drift", "Paths", "Ray", "angle", "class_angles", "class_directions",
    "cluster", "common_drift", "cosines", "direction", "drift_coordinates", "drift_part", "flow_in_log_time",
    "follow", "inner", "jacobian_eigenvalues", "jacobian_norm", "leading_eigenvalue", "linear_probe",
    "lyapunov_exponent", "nearest_class", "norm", "normalised_field", "path_turning", "ray_distance",
    "relative_speed", "remove_drift", "sensitivity", "settling_time", "silhouette", "solve_ray", "states_at",
    "turning", "velocities",
]
