from gradlab.dtypes import *
from gradlab.tensor import Tensor
from gradlab.ops.elementwise import *
from gradlab.ops.shape import *
from gradlab.ops.indexing import *
from gradlab.ops.creation import *
from gradlab.autograd import *
from gradlab import autograd
