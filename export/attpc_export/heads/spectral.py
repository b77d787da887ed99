"""Finds clusters without labels: a neighbourhood graph of the latent, cut where it is thin.

Spectral clustering of the graph of nearest neighbours (von Luxburg, arXiv 0711.0189) follows
clusters of any shape, but only says where the events that it was given belong. So the latent is
described by many small Gaussians, each of which belongs to the cluster of most of its events: that
is a head which a bundle can run.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph
from tqdm import tqdm

from attpc_export.heads.clusters import ClusterHead
from attpc_filter.errors import UsageError

#: Most clusters that a person is asked to name.
MOST_CLUSTERS = 9
#: Fewer are not tried: noise alone is of several kinds, and the rarest particle would be hidden.
_FEWEST_CLUSTERS = 5
_GAUSSIANS = 36
_EVENTS_A_GAUSSIAN = 10
_COMPONENTS = 10
_REGULARISATION = 1e-2
_NEIGHBOURS = 15
#: Entries of the standardised latent beyond this many standard deviations count as this.
_FARTHEST = 5.0
#: Events of which the graph is made; of more, so many are drawn.
_MOST_EVENTS = 6000
#: Parts of the events that are clustered anew to see whether the same clusters are found.
_PARTS = 3
_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Found:
    """Clusters of a latent.

    Attributes
    ----------
    head : ClusterHead
        Many Gaussians; their shares hold which cluster each belongs to, (n_gaussians, n_clusters).
    stability : dict of int to float
        For each number of clusters that was tried: mean adjusted Rand index between clusterings of
        70% of the events, drawn anew.
    """

    head: ClusterHead
    stability: dict[int, float]

    @property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        return int(self.head.share.shape[1])


def find_clusters(latent: NDArray[np.float32], n_clusters: int, seed: int) -> Found:
    """Find clusters, and how many there are.

    Parameters
    ----------
    latent : ndarray of float32, shape (n_events, latent_size)
        Latents.
    n_clusters : int
        How many; 0: of 5 to 9 the most stable number.
    seed : int
        Of all that is drawn.

    Raises
    ------
    UsageError
        If there are too few events.
    """
    if len(latent) < 20 * MOST_CLUSTERS:
        raise UsageError(f"--data: {len(latent)} events; clusters need {20 * MOST_CLUSTERS}")
    rng = np.random.default_rng(seed)
    latent = latent[rng.permutation(len(latent))[:_MOST_EVENTS]]
    mean, scale = latent.mean(0, dtype=np.float64), latent.std(0, dtype=np.float64) + 1e-6
    standard = np.clip((latent - mean) / scale, -_FARTHEST, _FARTHEST)
    pca = PCA(min(_COMPONENTS, standard.shape[1]), random_state=seed).fit(standard)
    # half way to whitening: small components carry the rarer differences
    weight = pca.explained_variance_**-0.25
    components = pca.components_ * weight[:, None] / scale
    place = (standard - pca.mean_) @ (pca.components_ * weight[:, None]).T
    n_gaussians = min(_GAUSSIANS, len(place) // _EVENTS_A_GAUSSIAN)
    mixture = GaussianMixture(n_gaussians, reg_covar=_REGULARISATION, random_state=seed).fit(place)
    member = mixture.predict(place)

    stability: dict[int, float] = {}
    tried = [n_clusters] if n_clusters else list(range(_FEWEST_CLUSTERS, MOST_CLUSTERS + 1))
    parts = [rng.permutation(len(place))[: round(_SHARE * len(place))] for _ in range(_PARTS)]
    graphs = [_graph(place[part]) for part in parts]
    for number in tqdm(tried, desc="numbers of clusters", disable=None):
        found = np.full((_PARTS, len(place)), -1)
        for index, (part, graph) in enumerate(zip(parts, graphs, strict=True)):
            found[index, part] = _cut(graph, number, seed)
        pairs = [(i, j) for i in range(_PARTS) for j in range(i)]
        both = [(found[:, (found[i] >= 0) & (found[j] >= 0)], i, j) for i, j in pairs]
        stability[number] = float(np.mean([adjusted_rand_score(f[i], f[j]) for f, i, j in both]))
    best = max(stability, key=lambda number: stability[number])
    cluster = _cut(_graph(place), best, seed)
    share = np.zeros((n_gaussians, best))
    np.add.at(share, (member, cluster), 1.0)
    owner = share.argmax(axis=1)
    owner = np.unique(owner, return_inverse=True)[1]  # clusters that own no Gaussian are none
    precision = mixture.precisions_cholesky_
    log_determinant = np.log(np.diagonal(precision, axis1=1, axis2=2)).sum(axis=1)
    head = ClusterHead(
        kind="mixture",
        share=np.eye(owner.max() + 1)[owner],
        mean=mean + scale * pca.mean_,
        components=components,
        centres=np.asarray(mixture.means_, np.float64),
        precision=np.asarray(precision, np.float64),
        offset=np.log(mixture.weights_) + log_determinant,
        sharpness=0.0,
    )
    return Found(head, stability)


def name_clusters(head: ClusterHead, names: tuple[str, ...], classes: list[str]) -> ClusterHead:
    """Turn a head that scores clusters into one that scores classes.

    Parameters
    ----------
    head : ClusterHead
        Of :func:`find_clusters`.
    names : tuple of str
        Class of each cluster.
    classes : list of str
        Names of the classes.
    """
    class_of = np.eye(len(classes))[[classes.index(name) for name in names]]
    return replace(head, share=head.share @ class_of)


def _graph(place: NDArray[np.float64]) -> Any:
    graph = kneighbors_graph(place, _NEIGHBOURS, include_self=True)
    return 0.5 * (graph + graph.T)


def _cut(graph: Any, n_clusters: int, seed: int) -> NDArray[np.int64]:
    clustering = SpectralClustering(n_clusters, affinity="precomputed", random_state=seed)
    with warnings.catch_warnings():
        # parts of the graph that nothing connects are clusters too
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        found: NDArray[np.int64] = clustering.fit(graph).labels_
    return found
